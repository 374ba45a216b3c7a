"""Child processes that cannot outlive this one: `python -m harness.processes PARENT MODULE [ARGUMENT ...]`.

The child asks the kernel itself to be killed with its parent. Asking between fork and exec (`preexec_fn`)
would need a real fork, which crashes now and then in a process that uses gRPC.
"""

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from harness.paths import PROJECT_ROOT, weights_dir
from harness.supervisor import PR_SET_PDEATHSIG, prctl

_PR_GET_PDEATHSIG = 2  # linux/prctl.h
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h


def start_module(
    module: str,
    *arguments: str,
    stdin: IO[Any] | int | None = None,
    stdout: IO[Any] | int | None = None,
    stderr: IO[Any] | int | None = None,
    environment: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Run a module of this project, away from the terminal's Ctrl-C, until the calling thread ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.processes", str(os.getpid()), module, *arguments],
        cwd=PROJECT_ROOT,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        # The child has another working directory, and so another meaning of a relative folder.
        env={**os.environ, "MODEL_DIR": str(weights_dir()), **(environment or {})},
        text=True,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all its threads together, to the nanosecond.

    /proc has it in clock ticks: a short test's client can use less than one.
    """
    # clock_getcpuclockid(3), which Python has for threads only.
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def peak_rss_bytes(pid: int) -> int:
    """Most memory that a process ever had, as the kernel noted it; 0 of one that has ended.

    Not getrusage's figure, which begins with that of whoever forked the process.
    """
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return sum(int(line.split()[1]) * 1024 for line in lines)


@contextlib.contextmanager
def death_with_parent_put_off() -> Iterator[None]:
    """Live to the end of the block, even if the parent dies: for what must be cleared up."""
    parent, asked = os.getppid(), ctypes.c_int()
    prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked))
    prctl(PR_SET_PDEATHSIG, 0)
    try:
        yield
    finally:
        prctl(PR_SET_PDEATHSIG, asked.value)
        if asked.value and os.getppid() != parent:
            os.kill(os.getpid(), asked.value)


def main() -> None:
    """Become the module, once it is certain that we end with the parent."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it ended before we could ask
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

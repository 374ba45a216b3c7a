"""Child processes that cannot outlive us: `python -m harness.machine.processes PARENT MODULE [ARGUMENT ...]`.

The child asks the kernel itself to be killed with its parent. Asking between fork and exec (`preexec_fn`)
would need a real fork, which crashes now and then in a process that uses gRPC.
"""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

from harness.errors import EXIT_USAGE
from harness.machine.extras import how_to_install
from harness.machine.kernel import PR_SET_PDEATHSIG, prctl
from harness.machine.paths import HOME_DIR, HOME_VARIABLE, PROJECT_ROOT, weights_dir


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
    # The child has another working directory, and so another meaning of a relative folder.
    folders = {HOME_VARIABLE: str(HOME_DIR), "MODEL_DIR": str(weights_dir())}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.machine.processes", str(os.getpid()), module, *arguments],
        cwd=PROJECT_ROOT,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **folders, **(environment or {})},
        text=True,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def main() -> None:
    """Become the module, once it is certain that we end with the parent."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it ended before we could ask
    sys.argv = sys.argv[2:]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as missing:
        # Whoever has started us takes the last line as the reason.
        sys.stderr.write(f"error: {how_to_install(missing.name or str(missing))}\n")
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()

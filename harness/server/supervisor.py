"""The process between us and tritonserver, which makes sure that nothing outlives it.

tritonserver's stubs are processes of their own that hold shared memory; after a crash of the server, or of
whoever started it, they may stay behind. This process starts the server, adopts its orphans, and when the
server ends, for whatever reason, ends them and removes their shared memory.

Standard library only: it stays in memory as long as the server.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.machine.files import whole
from harness.machine.kernel import PR_SET_PDEATHSIG, parents, prctl, start_time
from harness.server import hidden, regions
from harness.server.flags import hidden_control_flags

GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
_PR_SET_CHILD_SUBREAPER = 36
_ENDING = {signal.SIGTERM, signal.SIGINT}


def main() -> None:
    """Run the server that argv[1] describes (see `lifecycle`) until it ends or we are told to."""
    plan = json.loads(sys.argv[1])
    # What is written here and by the server is for its user; only stubs' regions are not, as Triton has it.
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_ENDING})
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if plan["die_with"]:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != plan["die_with"]:
            return  # it died before we could ask to be told
    prefix = plan["state"]["shm_prefix"]
    try:
        regions.own(prefix)  # to our end, whatever that is
    except OSError as error:
        sys.exit(f"cannot create a file in /dev/shm: {error.strerror}")
    server = _start_server(plan)
    state_file = Path(plan["state_file"])
    own = {"pid": server.pid, "started": start_time(server.pid)}
    supervisor = {"supervisor": os.getpid(), "supervisor_started": start_time(os.getpid())}
    write_state(state_file, {**plan["state"], **own, **supervisor})
    try:
        if how := _wait_for_end(server.pid):
            print(f"tritonserver has ended, {how}", flush=True)  # noqa: T201 - into the server's log
    finally:
        kill_children()
        regions.remove(prefix)
        state_file.unlink(missing_ok=True)
        if key_file := plan["state"]["key_file"]:
            Path(key_file).unlink(missing_ok=True)


def _start_server(plan: dict[str, Any]) -> subprocess.Popen[bytes]:
    key_file = plan["state"]["key_file"]
    flags = hidden_control_flags(Path(key_file).read_text(encoding="utf-8")) if key_file else {}
    try:
        command = [*plan["command"], *flags]
        return hidden.start(command, flags, _follow_supervisor, cwd=plan["folder"])
    except hidden.CannotHide as error:
        print(f"other users can read the key of this server's control: {error}", flush=True)  # noqa: T201
        command = [*plan["command"], *flags.values()]
        return subprocess.Popen(command, cwd=plan["folder"], preexec_fn=_follow_supervisor)


def _follow_supervisor() -> None:
    """In the server before it runs: die with the supervisor, take signals again."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _wait_for_end(server: int) -> str:
    """Return when the server has ended: how, or nothing where we were told to end it."""
    deadline: float | None = None
    while (status := _end_of(server)) is None:
        if deadline is None:
            if signal.sigwait({signal.SIGCHLD, *_ENDING}) in _ENDING:
                os.kill(server, signal.SIGTERM)
                deadline = time.monotonic() + GRACE_S
        elif signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic())) is None:
            os.kill(server, signal.SIGKILL)
            deadline = time.monotonic() + GRACE_S
    return "" if deadline else _how_it_ended(status)


def _end_of(server: int) -> int | None:
    """Reap whatever has ended; the server's wait status if it was among it."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == server:
            return status
        if pid == 0:
            return None


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"by itself (exit code {code})"
    if -code == signal.SIGKILL:
        return "killed by SIGKILL: Linux does that to the largest process when memory runs out"
    return f"killed by {signal.Signals(-code).name}"


def kill_children() -> None:
    """Kill and reap every child of this process, adopted ones included."""
    while children := [pid for pid, parent in parents().items() if parent == os.getpid()]:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Write the state file as a whole or not at all."""
    with whole(file) as partial:
        partial.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

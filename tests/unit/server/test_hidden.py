"""Arguments that a program gets, and that its command line does not show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.server import hidden

WAITS = "import sys; print(*sys.argv[1:], flush=True); sys.stdin.read()"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []


def test_a_program_gets_what_nobody_else_can_read() -> None:
    secret = {"--a=(hidden)": "--a=first", "--b=(hidden)": f"--b={'longer' * 50}"}
    command = [sys.executable, "-c", WAITS, "--a=(hidden)", "as it is", "--b=(hidden)"]
    with hidden.start(command, secret, stdin=-1, stdout=-1) as process:
        assert process.stdout
        got = process.stdout.readline().decode()
        shown = Path(f"/proc/{process.pid}/cmdline").read_text().rstrip("\0").split("\0")
        reading = [*NOBODY, "cat", f"/proc/{process.pid}/environ"]
        environment = subprocess.run(reading, capture_output=True, text=True, check=False)
        process.communicate()
    assert got == f"--a=first as it is {secret['--b=(hidden)']}\n"
    assert shown == command
    assert process.returncode == 0
    if NOBODY:
        assert (environment.stdout, "Permission denied" in environment.stderr) == ("", True)


def test_what_is_to_be_done_first_is_done_in_the_child(tmp_path: Path) -> None:
    process = hidden.start(["cat", "parent"], {}, lambda: os.chdir(tmp_path), stderr=subprocess.DEVNULL)
    assert process.wait() == 1
    (tmp_path / "parent").write_text("")
    assert hidden.start(["cat", "parent"], {}, lambda: os.chdir(tmp_path)).wait() == 0


def test_a_program_that_is_not_there_is_an_error_of_the_system() -> None:
    with pytest.raises(FileNotFoundError):
        hidden.start(["/no/such/program"], {})


def test_where_tracing_is_forbidden_nothing_is_started(tmp_path: Path) -> None:
    def forbidden() -> None:
        raise PermissionError

    with pytest.raises(hidden.CannotHide):
        hidden.start(["touch", str(tmp_path / "file")], {}, forbidden)
    assert not (tmp_path / "file").exists()

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.machine.kernel import cpu_seconds
from harness.machine.paths import PROJECT_ROOT

PARENT = """
import signal
from harness.machine.processes import start_module
start_module("waiting")
signal.pause()
"""
WAITING = """
import os, signal
print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.fixture
def _waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `waiting` that says that it runs, and never ends."""
    (tmp_path / "waiting.py").write_text(WAITING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("_waiting")
def test_a_child_ends_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        assert os.getsid(child) != os.getsid(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
        # Both write to one pipe, which ends with the last of them.
        assert parent.communicate(timeout=120) == ("", None)


@pytest.mark.usefixtures("_waiting")
def test_a_child_whose_parent_has_ended_before_it_began_does_not_begin() -> None:
    # No process has this number.
    command = [sys.executable, "-m", "harness.machine.processes", "0", "waiting"]
    ended = subprocess.run(
        command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_cpu_time_of_another_process_is_what_it_says_itself() -> None:
    code = (
        "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ninput()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        its_own = float(child.stdout.readline())
        assert cpu_seconds(child.pid) == pytest.approx(its_own, abs=0.1)
        child.kill()


def test_less_than_a_clock_tick_is_not_nothing() -> None:
    before = cpu_seconds(os.getpid())
    deadline = time.process_time() + 0.0005
    while time.process_time() < deadline:
        pass
    assert 0.0005 <= cpu_seconds(os.getpid()) - before < 0.1

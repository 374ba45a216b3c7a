import subprocess
import sys

import pytest

from harness.machine import file_lock
from harness.machine.paths import PROJECT_ROOT

# Adds one to a number in a file, the slow way: without a lock, most of the additions are lost.
CHILD = """
import sys, time
from pathlib import Path
from harness.machine import file_lock
lock, number = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(30):
    with file_lock.hold(lock):
        value = int(number.read_text())
        time.sleep(0.001)
        number.write_text(str(value + 1))
"""


def test_only_one_process_is_inside_and_no_file_is_left(tmp_path):
    number = tmp_path / "number"
    number.write_text("0")
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / "lock"), str(number)]
    children = [subprocess.Popen(arguments, cwd=PROJECT_ROOT) for _ in range(4)]
    assert [child.wait(timeout=60) for child in children] == [0] * 4
    assert number.read_text() == "120"
    assert list(tmp_path.iterdir()) == [number]


def test_a_failure_inside_releases_the_lock(tmp_path):
    with pytest.raises(KeyError), file_lock.hold(tmp_path / "lock"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with file_lock.hold(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()


def test_what_a_killed_holder_left_behind_is_no_obstacle(tmp_path):
    (tmp_path / "lock").write_bytes(b"")
    with file_lock.hold(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []

import mmap
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import ServerError
from harness.machine.paths import PROJECT_ROOT
from harness.triton.shared_memory import Segment


@pytest.fixture
def path() -> Iterator[Path]:
    path = Path("/dev/shm") / f"test-{uuid.uuid4().hex}"
    yield path
    assert not path.exists()


def test_a_segment_has_its_name_only_while_it_is_mapped_elsewhere(path: Path) -> None:
    segment = Segment(path.name, 8192)
    assert not path.exists()
    with segment.named(), path.open("r+b") as file:
        elsewhere = mmap.mmap(file.fileno(), 0)
    assert not path.exists()
    segment.buffer[5000] = 7
    assert len(elsewhere) == 8192
    assert elsewhere[5000] == 7
    segment.close()


def test_another_segment_of_that_name_is_left_alone(path: Path) -> None:
    path.write_bytes(b"theirs")
    with (
        pytest.raises(ServerError, match=f"cannot create {path}: File exists"),
        Segment(path.name, 1).named(),
    ):
        pytest.fail("it took the name")
    assert path.read_bytes() == b"theirs"
    path.unlink()


def test_too_large_a_segment_is_refused(path: Path) -> None:
    free = os.statvfs("/dev/shm")
    with pytest.raises(ServerError, match="has no room for"):
        Segment(path.name, (free.f_blocks + 1) * free.f_frsize)


PARENT = """
import sys, time
from harness.machine.processes import start_module
start_module("tests.unit.triton.named_segment", sys.argv[1])
time.sleep(600)
"""


def test_a_process_whose_parent_dies_takes_the_name_away_before_it_ends(path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, path.name], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == "named\n"
        assert path.exists()
        parent.kill()
        # Ends when both have.
        assert parent.stdout.read() == "still there\n"

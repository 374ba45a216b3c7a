"""Shared memory of servers that are dead is removed, and of nobody else."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine.kernel import SHM_DIR
from harness.server import regions


@pytest.fixture
def prefix() -> Iterator[str]:
    """Of a server's regions; they go when the test ends."""
    found = regions.new_prefix()
    yield found
    regions.remove(found)


def add_region(prefix: str) -> Path:
    region = SHM_DIR / f"{prefix}4694-region"
    region.touch()
    return region


def test_a_dead_server_s_regions_and_lock_are_swept_and_a_living_one_s_are_not(prefix: str) -> None:
    region = add_region(prefix)
    with os.fdopen(regions.own(prefix)):
        regions.sweep()
        assert region.exists()
    regions.sweep()
    assert list(SHM_DIR.glob(f"{prefix}*")) == []


def test_regions_whose_owner_is_not_known_are_left_alone(prefix: str) -> None:
    region = add_region(prefix)
    regions.sweep()
    assert region.exists()


def test_another_user_s_are_left_alone(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    region, user = add_region(prefix), os.geteuid()
    lock = os.fdopen(regions.own(prefix))
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    lock.close()
    regions.sweep()
    assert region.exists()


@pytest.mark.parametrize(
    "name", ["lock", "0123456789ab", "0123456789ab_lock2", "*_lock", "0123456789aB_lock"]
)
def test_no_other_name_is_taken_for_a_lock(name: str) -> None:
    file = SHM_DIR / f"{regions.START}{name}"
    with contextlib.ExitStack() as stack:
        file.touch()
        stack.callback(file.unlink)
        regions.sweep()
        assert file.exists()


def test_a_prefix_is_owned_once(prefix: str) -> None:
    with os.fdopen(regions.own(prefix)), pytest.raises(FileExistsError):
        regions.own(prefix)

"""One builder at a time: a lock between processes that leaves no file behind."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock named `path`, waiting for whoever has it; the kernel releases it if we are killed.

    Raises:
        OSError: the file cannot be made, e.g. in an unwritable folder.
    """
    lock = _take(path)
    try:
        yield
    finally:
        # Still locked here: whoever waits for this file will find it gone and make a new one.
        path.unlink(missing_ok=True)
        os.close(lock)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock named `path`."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _take(path: Path) -> int:
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            _wait_for(lock, path)
            if _is_same_file(lock, path):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _wait_for(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("waiting for another process that holds %s", path)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is_same_file(lock: int, path: Path) -> bool:
    """Whether `path` is still what we locked, and not removed by its last holder."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False

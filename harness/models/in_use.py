"""Which runs use a user's file: while they do, its entry is not replaced by one with other options."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.machine import file_lock


@contextmanager
def hold(repository: Path, file: Path) -> Iterator[None]:
    """Say for the length of the block that this process uses the file's entry, and whoever else may."""
    mark = repository / f"{_prefix(file)}{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        # Where nothing can be written, the converters say so.
        with contextlib.suppress(OSError):
            repository.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock.hold(mark))
        yield


def is_used_by_another(repository: Path, file: Path) -> bool:
    """Whether a process uses the file's entry that is not the one which has started this one."""
    prefix = _prefix(file)
    return any(
        file_lock.is_held(mark)
        for mark in repository.glob(f"{prefix}*")
        if not mark.name.startswith(f"{prefix}{os.getppid()}-")
    )


def _prefix(file: Path) -> str:
    # Triton and git ignore names that begin with a dot.
    return f".used-{hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:16]}-"

"""Files that others read: each whole or not at all, and named where the disk does not take it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import ConfigError

_PROBE_BYTES = 1 << 20
"""About what one test leaves of logs."""


LFS_POINTER = b"version https://git-lfs"
"""How the text begins that git has in a file's place until it is fetched."""


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is Git LFS's stand-in for the one that is meant."""
    with path.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def check_writable(folder: Path, what: str = "results", option: str = "--output") -> None:
    """Find out now, not after ten minutes, whether a folder can be written to; makes it if missing.

    Args:
        folder: where.
        what: is to be written.
        option: that names another folder.

    Raises:
        ConfigError: it cannot.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # A full disk takes names, but no content.
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(f"cannot write {what} to {folder}: {reason}; see {option}") from error


def check_place(folder: Path, what: str = "results", option: str = "--output") -> None:
    """As `check_writable`, but that nothing is made or written: what is there already tells.

    Raises:
        ConfigError: it cannot.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "it cannot be written to" if there.is_dir() else "it is no folder"
        raise ConfigError(f"cannot write {what} to {folder}: {there}: {reason}; see {option}")


@contextmanager
def whole(path: Path, *, is_locked: bool = False) -> Iterator[Path]:
    """Give a path beside `path` to write to, which takes its place when the block ends; removed if it fails.

    Args:
        path: what was there before stays until then; where it is a link, what it leads to.
        is_locked: nobody else writes this file now, so what a killed process left can be written over.

    Raises:
        OSError: it is a device or a pipe, which nothing may take the place of.
    """
    path = path.resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    writer = "" if is_locked else f".{os.getpid()}"
    partial = path.with_name(f".{path.name}{writer}.tmp")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        ConfigError: the disk is full, or the file may not be written; what was there before stays.
    """
    try:
        with whole(path) as partial:
            # Names of files may hold what UTF-8 does not.
            partial.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error

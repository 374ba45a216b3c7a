"""Files that a run leaves: each whole or not at all, and named where the disk does not take it."""

import os
from pathlib import Path

from harness.errors import ConfigError

_PROBE_BYTES = 1 << 20
"""About what one test leaves of logs."""


def check_writable(folder: Path) -> None:
    """Find out now, not after ten minutes, whether results can be written to a folder; makes it if missing.

    Raises:
        ConfigError: they cannot.
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
        raise ConfigError(f"cannot write results to {folder}: {error.strerror}; see --output") from error


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        ConfigError: the disk is full, or the file may not be written; what was there before stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            # Names of files may hold what UTF-8 does not.
            partial.write_text(text, encoding="utf-8", errors="replace")
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error

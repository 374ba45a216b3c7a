"""A look at every image file before a run: which cannot be used, and what tells this set from another."""

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from harness.errors import DatasetError
from harness.machine import progress
from harness.machine.threads import in_threads

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_EDGE_BYTES = 4096
"""How much of a file's start and of its end goes into the fingerprint."""
_READERS = 8
"""Threads that look at files: they wait for the disk, not for a core."""


def fingerprint(files: Sequence[tuple[Path, int | None]]) -> str:
    """Digest of names, labels, sizes and the first and last 4 KiB of each file, in order.

    Args:
        files: each with its label, if it has one.

    Raises:
        DatasetError: files that are missing, empty or no images.
    """
    digest = hashlib.sha256()
    bad: list[str] = []
    with closing(in_threads(_probe, [path for path, _ in files], _READERS)) as probes:
        checked = progress.track(probes, "checking images", len(files))
        for (path, label), (edges, defect) in zip(files, checked, strict=True):
            if defect:
                bad.append(f"{path} {defect}")
            digest.update(os.fsencode(path.name) + f"\0{label}\0".encode() + edges)
    if bad:
        raise DatasetError(
            f"{bad[0]} ({len(bad)} of {len(files)} images cannot be used); none is skipped: complete the "
            f"folder, or list only what is there"
        )
    return digest.hexdigest()


def _probe(path: Path) -> tuple[bytes, str]:
    """Digest of size, start and end of a file, and what is wrong with it, if anything."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            return b"", "is a pipe"  # which would be waited for
        with path.open("rb", buffering=0) as stream:
            head = stream.read(_EDGE_BYTES)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(len(head), size - _EDGE_BYTES))
            tail = stream.read(_EDGE_BYTES)
    except FileNotFoundError:
        return b"", "is missing"
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    except ValueError:  # a null character, from a list
        return b"", "cannot be the name of a file"
    edges = hashlib.sha256(b"%d\0" % size + head + tail).digest()
    if not head:
        return edges, "is empty"
    return edges, "" if head.startswith(_MAGIC) else "is neither a JPEG nor a PNG"

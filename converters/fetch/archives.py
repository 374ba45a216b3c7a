"""One file out of a tar or zip archive. Paths inside the archive are only compared, never written to."""

import posixpath
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import ConversionError


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open the member of a tar or zip archive for reading.

    Raises:
        ConversionError: no such member, or it is a link or a folder, or the archive is neither.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            names = {
                posixpath.normpath(info.filename): info for info in zipped.infolist() if not info.is_dir()
            }
            with zipped.open(names[_find(member, names, archive)]) as stream:
                yield stream
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            files = {posixpath.normpath(info.name): info for info in tar if info.isreg()}
            opened = tar.extractfile(files[_find(member, files, archive)])
            assert opened is not None
            with opened as stream:
                yield stream
    else:
        raise ConversionError(f"{archive} is neither a tar nor a zip archive")


def _find(member: str, names: Collection[str], archive: Path) -> str:
    if member not in names:
        raise ConversionError(f"{archive} has no file {member}; it has: {', '.join(sorted(names)[:8])}")
    return member

"""Published files and archives: kept as they are published, with a note of what was unpacked from them."""

import logging
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from converters.fetch import archives, download, notes
from harness.errors import ConversionError
from harness.machine import file_lock, progress
from harness.machine.files import whole
from harness.models.manifest import digest
from harness.models.spec import Weights

logger = logging.getLogger(__name__)


def fetch_file(weights: Weights, folder: Path) -> Path:
    """Get the file as published into `folder`; the caller translates OSError (see `errors_about`).

    Raises:
        ConversionError: no source has it.
    """
    target = folder / weights.filename
    if download.matches(target, weights.checksum):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock.hold(folder / f".{weights.filename}.lock"):
        if not download.matches(target, weights.checksum):  # else whoever held the lock fetched it
            _replace_damaged(weights, target)
    return target


def _replace_damaged(weights: Weights, target: Path) -> None:
    """Download what is missing; of what is there and wrong, say how."""
    damage = ""
    if target.exists():
        found = download.checksum(target, weights.checksum)
        damage = f"{target} is damaged (checksum {found}, expected {weights.checksum}); "
        logger.warning("%sit is fetched again", damage)
    try:
        download.download(weights.urls, weights.checksum, target, weights.size_bytes)
    except ConversionError as error:
        raise ConversionError(f"{damage}{error}") from error
    logger.info("fetched %s (%.1f MB)", target, target.stat().st_size / 1e6)


def fetch_member(weights: Weights, folder: Path, name: str) -> Path:
    """Unpack the archive's member as `folder`/`name`, unless that was done before.

    Raises:
        ConversionError: no source has the archive, or it cannot be unpacked.
    """
    target = folder / name
    with errors_about(target):
        if _is_recorded(target, weights):
            return target
        archive = fetch_file(weights, folder)
        with file_lock.hold(folder / f".{name}.lock"):
            if not _is_recorded(target, weights):
                _unpack(archive, weights, target)
    return target


def _unpack(archive: Path, weights: Weights, target: Path) -> None:
    """Write the member beside `target`, verify, rename; nothing else in the archive is touched."""
    with whole(target, is_locked=True) as partial:
        with (
            progress.waiting(f"unpacking {target.name}"),
            archives.open_member(archive, weights.member) as source,
            partial.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink)
        sha256 = digest(partial)
        if target.exists():
            _check_replaceable(target, sha256, archive)
    notes.write(target, {target.name: sha256}, _origin(weights))


def _check_replaceable(target: Path, sha256: str, archive: Path) -> None:
    """Refuse to overwrite a file that somebody else put there; ours may be damaged."""
    found = digest(target)
    if found == sha256:
        return
    difference = f"{target} has sha256:{found}, in {archive.name} it is sha256:{sha256}"
    if not notes.note_of(target).exists():
        raise ConversionError(f"{difference}; it was not put there by this tool: move it away")
    logger.warning("%s; it is unpacked again", difference)


def _origin(weights: Weights) -> str:
    return f"{weights.member} of {weights.filename}, {weights.checksum}"


def _is_recorded(target: Path, weights: Weights) -> bool:
    """Whether `target` is, byte for byte, what was unpacked from this very archive."""
    known = notes.read(target, _origin(weights))
    return bool(known) and target.is_file() and known == {target.name: digest(target)}


@contextmanager
def errors_about(target: Path) -> Iterator[None]:
    """Turn the operating system's refusal, or a broken archive, into one line."""
    try:
        yield
    except (OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConversionError(f"cannot get {target}: {reason}") from error


def fetch_weights(weights: Weights, folder: Path) -> Path:
    """Get a published file, or the member of a published archive, into `folder`.

    A damaged file is reported and fetched again; an interrupted download goes on where it stopped.

    Returns:
        Path of the verified file; for an archive, of its unpacked member.

    Raises:
        ConversionError: no source has it, its checksum differs, or the folder cannot be written.
    """
    if not weights.member:
        with errors_about(folder / weights.filename):
            return fetch_file(weights, folder)
    return fetch_member(weights, folder, PurePosixPath(weights.member).name)

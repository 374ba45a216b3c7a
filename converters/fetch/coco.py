"""COCO's validation images and annotations of 2017: downloaded, verified, unpacked whole or not at all."""

import logging
import re
import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from converters.fetch import notes
from converters.fetch.published import errors_about, fetch_file
from harness.errors import ConversionError
from harness.machine import file_lock, progress
from harness.machine.environment import cpu_count
from harness.machine.threads import in_threads
from harness.models.manifest import digest
from harness.models.spec import Weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Part:
    """A folder of the data set, and the archive that it comes from."""

    folder: str
    archive: Weights
    wanted: str
    """Pattern of the members that are unpacked; their names have the folder first."""

    @property
    def origin(self) -> str:
        """What the note beside the folder says that it was made from."""
        return f"{self.archive.filename}, {self.archive.checksum}"


# Places and checksums: mlcommons/mlperf-automations, get-dataset-coco2017.
_PARTS = (
    _Part(
        folder="val2017",
        archive=Weights(
            filename="val2017.zip",
            urls=("http://images.cocodataset.org/zips/val2017.zip",),
            checksum="md5:442b8da7639aecaf257c1dceb8ba8c80",
        ),
        wanted=r"val2017/[\w-]+\.jpg",
    ),
    _Part(
        folder="annotations",
        archive=Weights(
            filename="annotations_trainval2017.zip",
            urls=("http://images.cocodataset.org/annotations/annotations_trainval2017.zip",),
            checksum="md5:f4bbac642086de4f52a3fdda2de5fa2c",
        ),
        wanted=r"annotations/instances_val2017\.json",
    ),
)


def fetch(folder: Path) -> str:
    """Get `folder`/val2017/ and `folder`/annotations/; what is there and intact is left alone.

    Returns:
        What to tell the user.

    Raises:
        ConversionError: no source has an archive, it is not fit to be unpacked, files that somebody else
            put there differ, or the folder cannot be written.
    """
    for part in _PARTS:
        with errors_about(folder / part.folder):
            if not _is_recorded(part, folder):
                archive = fetch_file(part.archive, folder)
                with file_lock.hold(folder / f".{part.folder}.lock"):
                    if not _is_recorded(part, folder):  # else whoever held the lock unpacked it
                        _unpack(archive, part, folder)
    archives = " and ".join(part.archive.filename for part in _PARTS)
    return (
        f"{folder}\nIt is complete: use it with --dataset-path {folder}; {archives} are not needed any more\n"
    )


def _unpack(archive: Path, part: _Part, folder: Path) -> None:
    """Unpack beside the target, then rename; the note comes last."""
    target, staging = folder / part.folder, folder / f".{part.folder}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed: we hold the lock
    try:
        checksums = _extract(archive, part, staging)
        _put_in_place(staging, checksums, target, notes.note_of(target).exists())
        named = {f"{part.folder}/{name}": sha256 for name, sha256 in checksums.items()}
        notes.write(target, named, part.origin)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    logger.info("unpacked %d files into %s", len(checksums), target)


def _extract(archive: Path, part: _Part, staging: Path) -> dict[str, str]:
    """Write the wanted members into `staging`; returns the sha256 by file name."""
    if not zipfile.is_zipfile(archive):
        raise ConversionError(f"{archive} is not a zip archive; remove it and fetch again")
    checksums = {}
    with zipfile.ZipFile(archive) as zipped:
        members = _wanted_members(zipped.infolist(), part, archive)
        staging.mkdir()
        for member in progress.track(members, f"unpacking {part.folder}", len(members)):
            target = staging / PurePosixPath(member.filename).name
            with zipped.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            checksums[target.name] = digest(target)
    return checksums


def _wanted_members(members: Sequence[zipfile.ZipInfo], part: _Part, archive: Path) -> list[zipfile.ZipInfo]:
    """Refuse the whole archive if any member could land outside its folder."""
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
            raise ConversionError(
                f"{archive} has the member {member.filename!r}, a link or outside the archive's own folder: "
                f"nothing of it was unpacked; it is not COCO's, remove it"
            )
    wanted = [member for member in members if re.fullmatch(part.wanted, member.filename)]
    if not wanted:
        raise ConversionError(f"{archive} has no file like {part.wanted}; it is not COCO's, remove it")
    return wanted


def _put_in_place(staging: Path, checksums: Mapping[str, str], target: Path, is_ours: bool) -> None:
    """Rename the folder as a whole, or repair one that is there, where only our own files are replaced."""
    if not target.exists() or not any(target.iterdir()):
        staging.rename(target)
        return
    differing = [
        target / name
        for name, sha256 in checksums.items()
        if (target / name).exists() and digest(target / name) != sha256
    ]
    if differing and not is_ours:
        raise ConversionError(
            f"{differing[0]} is not COCO's ({len(differing)} of {len(checksums)} files differ), and was not "
            f"put there by this tool: move {target} away, or fetch into another folder (--to)"
        )
    if differing:
        logger.warning(
            "%d of %d files differ from the archive, first %s; they are unpacked again",
            *(len(differing), len(checksums), differing[0]),
        )
    for name in checksums:
        (staging / name).replace(target / name)


def _is_recorded(part: _Part, folder: Path) -> bool:
    """Whether every file that was unpacked from this very archive is still there, byte for byte."""
    known = notes.read(folder / part.folder, part.origin)
    if not known:
        return False
    files = [folder / name for name in known]
    with closing(in_threads(_sha256, files, cpu_count())) as found:
        checked = progress.track(found, f"checking {part.folder}", len(files))
        return all(sha256 == noted for sha256, noted in zip(checked, known.values(), strict=True))


def _sha256(file: Path) -> str:
    return digest(file) if file.is_file() else ""

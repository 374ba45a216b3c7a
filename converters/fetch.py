"""Published files: download, resume, verify, unpack.

A file that is there and verified is used without touching the network.
"""

import argparse
import logging
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pooch

from converters import archives, download
from harness import file_lock, paths
from harness.datasets import LIST_NAME
from harness.errors import EXIT_INTERRUPTED, EXIT_VALID, ConversionError, HarnessError
from harness.models import MODELS, get_model
from harness.models.spec import Weights

logger = logging.getLogger(__name__)

IMAGENET = "imagenet"
# mlcommons/mlperf-automations, get-dataset-imagenet-aux: the mirror's archive is packed differently.
_IMAGENET_LABELS = (
    Weights(
        filename="caffe_ilsvrc12.tar.gz",
        urls=("http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz",),
        checksum="md5:f963098ea0e785a968ca1eb634003a90",
        member="val.txt",
    ),
    Weights(
        filename="caffe_ilsvrc12.tar.gz",
        urls=("https://armi.in/files/caffe_ilsvrc12.tar.gz",),
        checksum="md5:ee346d67141e476df9c1a3f813552503",
        member="val.txt",
    ),
)
_IMAGENET_IMAGES = """\
The 50,000 images cannot be fetched for you: register at https://image-net.org/download-images, get
ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622) and unpack it into {folder}
"""


def fetch_weights(weights: Weights, folder: Path) -> Path:
    """Get a published file, or the member of a published archive, into `folder`.

    A damaged file is reported and fetched again; an interrupted download goes on where it stopped.

    Returns:
        Path of the verified file; for an archive, of its unpacked member.

    Raises:
        ConversionError: no source has it, its checksum differs, or the folder cannot be written.
    """
    if not weights.member:
        with _errors_about(folder / weights.filename):
            return _fetch_file(weights, folder)
    return _fetch_member(weights, folder, PurePosixPath(weights.member).name)


def fetch_imagenet_labels(folder: Path) -> Path:
    """Get the list of ImageNet's validation images and labels as `folder`/val_map.txt.

    Raises:
        ConversionError: no source has it, or another list is there already.
    """
    present = [
        source for source in _IMAGENET_LABELS if download.matches(folder / source.filename, source.checksum)
    ]
    problems = []
    for source in present or _IMAGENET_LABELS:
        try:
            return _fetch_member(source, folder, LIST_NAME)
        except ConversionError as error:
            problems.append(str(error))
    raise ConversionError("; ".join(dict.fromkeys(problems)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m converters.fetch`; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m converters.fetch",
        description="Download a model's published weights, or ImageNet's list of labels, and verify them.",
    )
    parser.add_argument("what", help=f"{', '.join(MODELS)} or {IMAGENET}")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder (default: $MODEL_DIR or $DATA_DIR, else .state/)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.stdout.write(_fetch_by_name(options.what, options.to))
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was downloaded is kept, and the next fetch goes on from there\n")
        return EXIT_INTERRUPTED
    return EXIT_VALID


def _fetch_by_name(name: str, folder: Path | None) -> str:
    """Fetch all that belongs to a model, or ImageNet's labels; return what to print."""
    if name == IMAGENET:
        folder = (folder or paths.data_dir() or paths.STATE_DIR / "data" / IMAGENET).absolute()
        return f"{fetch_imagenet_labels(folder)}\n" + _IMAGENET_IMAGES.format(folder=folder)
    sources = get_model(name).sources.values()
    folder = (folder or paths.weights_dir()).absolute()
    return "".join(f"{fetch_weights(weights, folder)}\n" for weights in sources)


def _fetch_file(weights: Weights, folder: Path) -> Path:
    """Get the file as published; the caller translates OSError."""
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


def _fetch_member(weights: Weights, folder: Path, name: str) -> Path:
    """Unpack the archive's member as `folder`/`name`, unless that was done before."""
    target = folder / name
    with _errors_about(target):
        if _is_recorded(target, weights):
            return target
        archive = _fetch_file(weights, folder)
        with file_lock.hold(folder / f".{name}.lock"):
            if not _is_recorded(target, weights):
                _unpack(archive, weights, target)
    return target


def _unpack(archive: Path, weights: Weights, target: Path) -> None:
    """Write the member beside `target`, verify, rename; nothing else in the archive is touched."""
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        with archives.open_member(archive, weights.member) as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        sha256 = pooch.file_hash(str(temporary))
        if target.exists():
            _check_replaceable(target, sha256, archive)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    record = _record_of(target)
    record.write_text(_record(target, weights, sha256), encoding="utf-8")


def _check_replaceable(target: Path, sha256: str, archive: Path) -> None:
    """Refuse to overwrite a file that somebody else put there; ours may be damaged."""
    found = pooch.file_hash(str(target))
    if found == sha256:
        return
    difference = f"{target} has sha256:{found}, in {archive.name} it is sha256:{sha256}"
    if not _record_of(target).exists():
        raise ConversionError(f"{difference}; it was not put there by this tool: move it away")
    logger.warning("%s; it is unpacked again", difference)


def _record_of(target: Path) -> Path:
    """The note beside an unpacked file; `sha256sum -c` reads it too."""
    return target.with_name(f"{target.name}.sha256")


def _record(target: Path, weights: Weights, sha256: str) -> str:
    return f"# {weights.member} of {weights.filename}, {weights.checksum}\n{sha256}  {target.name}\n"


def _is_recorded(target: Path, weights: Weights) -> bool:
    """Whether `target` is, byte for byte, what was unpacked from this very archive."""
    record = _record_of(target)
    if not target.is_file() or not record.is_file():
        return False
    return record.read_text(encoding="utf-8") == _record(target, weights, pooch.file_hash(str(target)))


@contextmanager
def _errors_about(target: Path) -> Iterator[None]:
    """Turn the operating system's refusal, or a broken archive, into one line."""
    try:
        yield
    except (OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConversionError(f"cannot get {target}: {reason}") from error


if __name__ == "__main__":
    sys.exit(main())

"""Which images there are, in which order, with which labels; a look at every file before a run.

A sample's index here is LoadGen's sample index. Nothing is skipped: MLPerf's accuracy scripts index the list,
so a missing file would shift every later label.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness.data.annotations import Annotations
from harness.data.preprocess import UNMARKED_STARTS
from harness.errors import ConfigError, DatasetError
from harness.machine import progress
from harness.machine.environment import cpu_count
from harness.machine.files import LFS_POINTER
from harness.machine.threads import in_threads

IMAGE_SUFFIXES = (
    *(".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".j2k"),
)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", *UNMARKED_STARTS)
"""Of what OpenCV reads, and so the MLPerf reference: JPEG, PNG, BMP, WebP, PPM, JPEG 2000, TIFF."""
_READERS = 8
"""Threads that look at files: they wait for the disk, not for a core."""


@dataclass(frozen=True)
class Sample:
    """One image."""

    path: Path
    label: int | None
    """ImageNet class, 0-999; None where there is no ground truth, and for COCO."""


@dataclass(frozen=True)
class Dataset:
    """Images in LoadGen's order."""

    name: str
    root: Path
    samples: tuple[Sample, ...]
    fingerprint: str
    """Digest of names, labels or annotations and of every byte of each file, in order."""
    is_complete: bool
    """Whether this is the whole real set in its published order, and with its published labels if any."""
    has_labels: bool
    coco: Annotations | None = None
    """COCO only: image i is that of sample i."""


def check_count(count: int | None) -> None:
    """Refuse a number of images that there cannot be.

    Raises:
        ConfigError: it is less than 1.
    """
    if count is not None and count < 1:
        raise ConfigError(f"count must be at least 1, not {count}")


def draw(root: Path, count: int) -> tuple[Sample, ...]:
    """Synthetic images, without labels; those that are not in `root` yet are drawn.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the folder cannot be written.
    """
    check_count(count)
    # Takes OpenCV, which a client of real images may lack.
    from harness.data import synthetic

    with progress.bar("drawing synthetic images", count) as advance:
        paths = synthetic.draw_set(root, count, cpu_count(), advance)
    return tuple(Sample(path, None) for path in paths)


def files_of(folder: Path) -> Iterable[Path]:
    """What is in a folder; nothing where there is none."""
    return folder.iterdir() if folder.is_dir() else ()


def take(samples: Sequence[Sample], count: int | None, source: Path) -> tuple[Sample, ...]:
    """The first `count` samples, or all.

    Raises:
        DatasetError: `source` has fewer.
    """
    if count is not None and count > len(samples):
        raise DatasetError(f"{count} images wanted, but {source} has {len(samples)}; lower --count")
    return tuple(samples[:count])


def shortfalls(images: int, *, is_complete: bool, has_labels: bool) -> tuple[str, ...]:
    """What keeps so many images from being the whole real set."""
    if not has_labels:
        return ("images without labels",)
    return () if is_complete else (f"{images} images instead of the whole data set",)


def fingerprint(samples: Sequence[Sample]) -> str:
    """Digest of names, labels and every byte of each file, in order.

    Not of less: a file that was damaged in the middle, and then repaired, would pass for what it was.

    Raises:
        DatasetError: files that are missing, empty or no images.
    """
    digest = hashlib.sha256()
    bad: list[str] = []
    with closing(in_threads(_probe, [sample.path for sample in samples], _READERS)) as probes:
        checked = progress.track(probes, "checking images", len(samples))
        for sample, (content, defect) in zip(samples, checked, strict=True):
            if defect:
                bad.append(f"{sample.path} {defect}")
            digest.update(os.fsencode(sample.path.name) + f"\0{sample.label}\0".encode() + content)
    if bad:
        raise DatasetError(
            f"{bad[0]} ({len(bad)} of {len(samples)} images cannot be used); none is skipped: complete the "
            f"folder, or list only what is there"
        )
    return digest.hexdigest()


def _probe(path: Path) -> tuple[bytes, str]:
    """Digest of a file, and what is wrong with it, if anything."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            return b"", "is a pipe"  # which would be waited for
        with path.open("rb", buffering=0) as stream:
            head = stream.read(len(LFS_POINTER))
            stream.seek(0)
            content = hashlib.file_digest(stream, "sha256").digest()
    except FileNotFoundError:
        return b"", "is missing"
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    except ValueError:  # a null character, from a list
        return b"", "cannot be the name of a file"
    if not head:
        return content, "is empty"
    if head == LFS_POINTER:
        return content, "is a Git LFS pointer, not the image: run `git lfs pull` there"
    return content, "" if head.startswith(_MAGIC) else "is no JPEG, PNG, BMP, WebP, PPM, JPEG 2000 or TIFF"

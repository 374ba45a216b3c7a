"""Which images there are, in which order, with which labels. A sample's index here is LoadGen's sample index.

Nothing is skipped: MLPerf's accuracy scripts index the list; a missing file would shift every later label.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import coco, image_files, synthetic
from harness.coco import Annotations
from harness.errors import ConfigError, DatasetError
from harness.machine import progress

logger = logging.getLogger(__name__)

LIST_NAME = "val_map.txt"
CLASSES = 1000
COCO_LIST_NAME = "annotations/instances_val2017.json"

_IMAGENET_SIZE = 50_000
# Of the labels in order, a line each, as in val.txt of caffe_ilsvrc12.tar.gz, which the reference uses.
_IMAGENET_LABELS_SHA256 = "098d797749a19d2c76f3243494b4d38079446eab41f3b8775212a33e4558a35f"
_IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


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
    """Digest of names, labels or annotations, sizes and the first and last 4 KiB of each file, in order."""
    is_complete: bool
    """Whether this is the whole real set in its published order, and with its published labels if any."""
    has_labels: bool
    coco: Annotations | None = None
    """COCO only: image i is that of sample i."""


def open_imagenet(path: Path, *, list_file: Path | None, count: int | None) -> Dataset:
    """Find the ImageNet validation images, or another set that is laid out like them.

    The order is that of `list_file`, else of val_map.txt in the folder: lines `file label`, the files being
    in the folder, in its `val/`, or in the synset folders of either. Without a list: by file name, labelled
    by the 1000 synset folders, or without labels where the images lie flat.

    Args:
        path: the folder.
        list_file: a list to use instead of val_map.txt.
        count: how many to take, from the start; None for all.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the list is bad, or what it names cannot be used (which, how many of how many).
    """
    _check_count(count)
    if not path.is_dir():
        raise DatasetError(
            f"dataset folder {path} does not exist; `./run.sh fetch imagenet` says what to put there"
        )
    path = path.absolute()
    source = list_file or path / LIST_NAME
    if list_file or source.is_file():
        samples = _take(_locate(path, source, _read_list(source)), count, source)
    else:
        samples = _take(_scan(path), count, path)
    dataset = _dataset("imagenet", path, samples)
    if not dataset.has_labels:
        logger.warning("%s: no labels, so accuracy cannot be measured; they belong into %s", path, LIST_NAME)
    return dataset


def open_coco(path: Path, *, list_file: Path | None, count: int | None) -> Dataset:
    """Find COCO's validation images, or another set that is laid out and annotated like them.

    The order is that of the annotation file's images, with or without objects, the files being in the
    folder's `val2017/`, or in the folder itself. Without an annotation file: by name, and with no labels.

    Args:
        path: the folder.
        list_file: an annotation file to use instead of annotations/instances_val2017.json in the folder.
        count: how many to take, from the start; None for all.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the annotations are bad, or the images cannot be used (which, how many of how many).
    """
    _check_count(count)
    if not path.is_dir():
        raise DatasetError(f"dataset folder {path} does not exist; `./run.sh fetch coco2017` downloads COCO")
    path = path.absolute()
    source = list_file or path / COCO_LIST_NAME
    if list_file or source.is_file():
        annotations = coco.read_annotations(source)
        samples = _take(_locate_coco(path, source, annotations), count, source)
        dataset = _coco_dataset("coco", path, samples, coco.subset(annotations, len(samples)))
    else:
        dataset = _coco_dataset("coco", path, _take(_scan_coco(path), count, path), None)
    if not dataset.has_labels:
        logger.warning(
            "%s: no annotations, so accuracy cannot be measured; they belong into %s", path, COCO_LIST_NAME
        )
    return dataset


def open_synthetic(root: Path, count: int) -> Dataset:
    """Images that the tool draws itself; those that are not in `root` yet are drawn.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the folder cannot be written.
    """
    return _dataset("synthetic", root.absolute(), _draw(root.absolute(), count))


def open_synthetic_coco(root: Path, count: int) -> Dataset:
    """The same images for detectors: with COCO's categories and their sizes, but no objects.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the folder cannot be written.
    """
    return _coco_dataset("synthetic", root.absolute(), _draw(root.absolute(), count), None)


def _check_count(count: int | None) -> None:
    if count is not None and count < 1:
        raise ConfigError(f"count must be at least 1, not {count}")


def _draw(root: Path, count: int) -> tuple[Sample, ...]:
    _check_count(count)
    with progress.bar("drawing synthetic images", count) as advance:
        paths = synthetic.draw_set(root, count, len(os.sched_getaffinity(0)), advance)
    return tuple(Sample(path, None) for path in paths)


def _coco_dataset(
    name: str, root: Path, samples: tuple[Sample, ...], annotations: Annotations | None
) -> Dataset:
    """Without annotations, the sizes are read from the files, once these are known to be images."""
    fingerprint = _fingerprint(samples)
    annotations = annotations or coco.of_files([sample.path for sample in samples])
    return Dataset(
        name=name,
        root=root,
        samples=samples,
        fingerprint=hashlib.sha256((fingerprint + coco.digest(annotations)).encode()).hexdigest(),
        is_complete=coco.is_val2017(annotations),
        has_labels=bool(annotations.annotations),
        coco=annotations,
    )


def _locate_coco(path: Path, source: Path, annotations: Annotations) -> list[Sample]:
    """Where the annotated images are; the first layout that has any of them is taken to be the one."""
    files = [image.file_name for image in annotations.images]
    for folder in (path / "val2017", path):
        if any((folder / file).is_file() for file in files):
            return [Sample(folder / file, None) for file in files]
    raise DatasetError(
        f"{source} does not belong to {path}: not one of its {len(files)} images is there (the first is "
        f"{files[0]}); `./run.sh fetch coco2017` downloads both"
    )


def _scan_coco(path: Path) -> list[Sample]:
    """Images of a folder without annotations, by name."""
    for folder in (path / "val2017", path):
        images = sorted(image for image in _entries(folder) if image.suffix.lower() in _IMAGE_SUFFIXES)
        if images:
            return [Sample(image, None) for image in images]
    raise DatasetError(
        f"no images in {path}: wanted val2017/*.jpg and {COCO_LIST_NAME}; "
        f"`./run.sh fetch coco2017` downloads them"
    )


def _dataset(name: str, root: Path, samples: tuple[Sample, ...]) -> Dataset:
    return Dataset(
        name=name,
        root=root,
        samples=samples,
        fingerprint=_fingerprint(samples),
        is_complete=_is_imagenet(samples),
        has_labels=all(sample.label is not None for sample in samples),
    )


def _read_list(source: Path) -> list[tuple[str, int]]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the list {source}: {error}") from error
    entries = [_parse(line, f"{source}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise DatasetError(f"the list {source} is empty; it wants lines `file label`")
    labels = dict(entries)
    for file, label in entries:
        if labels[file] != label:
            raise DatasetError(f"{source} gives {file} two labels: {label} and {labels[file]}")
    return entries


def _parse(line: str, where: str) -> tuple[str, int]:
    columns = line.split()
    if len(columns) != 2:
        raise DatasetError(f"{where}: wants two columns, `file label`, not {line.strip()!r}")
    file, label = columns
    if not re.fullmatch(r"[0-9]{1,9}", label) or int(label) >= CLASSES:
        raise DatasetError(
            f"{where}: the label must be a whole number from 0 to {CLASSES - 1}, not {label!r}"
        )
    return file, int(label)


def _locate(path: Path, source: Path, entries: list[tuple[str, int]]) -> list[Sample]:
    """Where the listed files are; the first layout that has any of them is taken to be the one."""
    for folder in (path, path / "val"):
        if any((folder / file).is_file() for file, _ in entries):
            return [Sample(folder / file, label) for file, label in entries]
    by_name = {image.name: image for image, _ in _synset_images(path)}
    if not any(file in by_name for file, _ in entries):
        raise DatasetError(
            f"{source} does not belong to {path}: not one of its {len(entries)} images is there "
            f"(the first is {entries[0][0]})"
        )
    return [Sample(by_name.get(file, path / file), label) for file, label in entries]


def _scan(path: Path) -> list[Sample]:
    """Images of a folder without a list, in the order of their names, as the published list has them."""
    images = sorted(_synset_images(path), key=lambda image: image[0].name)
    if images:
        synsets = sorted({synset for _, synset in images})
        if len(synsets) != CLASSES:
            raise DatasetError(
                f"{path} has {len(synsets)} synset folders with images; labels follow from them only if all "
                f"{CLASSES} are there: add {LIST_NAME} (lines `file label`) or name a list"
            )
        label = {synset: number for number, synset in enumerate(synsets)}
        return [Sample(image, label[synset]) for image, synset in images]
    for folder in (path, path / "val"):
        flat = sorted(folder.glob("ILSVRC2012_val_*.JPEG"))
        if flat:
            return [Sample(image, None) for image in flat]
    raise DatasetError(
        f"no images in {path}: wanted {LIST_NAME} with the files that it names, ILSVRC2012_val_*.JPEG, or "
        f"one folder per synset; `./run.sh fetch imagenet` says where to get them"
    )


def _synset_images(path: Path) -> Iterator[tuple[Path, str]]:
    """Images in `n01440764/` and the like, in the folder or its `val/`, with the synset's name."""
    for folder in (path, path / "val"):
        synsets = [entry for entry in _entries(folder) if re.fullmatch(r"n\d{8}", entry.name)]
        for synset in synsets:
            for image in _entries(synset):
                if image.suffix.lower() in _IMAGE_SUFFIXES:
                    yield image, synset.name
        if synsets:
            return


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def _take(samples: Sequence[Sample], count: int | None, source: Path) -> tuple[Sample, ...]:
    if count is not None and count > len(samples):
        raise DatasetError(f"{count} images wanted, but {source} has {len(samples)}; lower --count")
    return tuple(samples[:count])


def _fingerprint(samples: Sequence[Sample]) -> str:
    return image_files.fingerprint([(sample.path, sample.label) for sample in samples])


def _is_imagenet(samples: Sequence[Sample]) -> bool:
    """Whether these are the 50,000 validation images, in order, with the labels that MLPerf uses."""
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, _IMAGENET_SIZE + 1)]
    if [sample.path.name for sample in samples] != names:
        return False
    labels = "".join(f"{sample.label}\n" for sample in samples)
    if samples[0].label is None or hashlib.sha256(labels.encode()).hexdigest() == _IMAGENET_LABELS_SHA256:
        return True
    logger.warning("these are ImageNet's validation images, but not with the labels that MLPerf uses")
    return False

"""COCO, or what is laid out and annotated like it; synthetic images, which show no objects."""

import hashlib
import logging
from pathlib import Path

from harness.data.annotations import (
    Annotations,
    digest,
    is_val2017,
    of_files,
    read_annotations,
    subset,
    turned,
)
from harness.data.dataset import (
    IMAGE_SUFFIXES,
    Dataset,
    Sample,
    check_count,
    draw,
    files_of,
    fingerprint,
    shortfalls,
    take,
)
from harness.errors import DatasetError

logger = logging.getLogger(__name__)

COCO_LIST_NAME = "annotations/instances_val2017.json"


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
    check_count(count)
    if not path.is_dir():
        raise DatasetError(f"dataset folder {path} does not exist; `./run.sh fetch coco2017` downloads COCO")
    path = path.absolute()
    source = list_file or path / COCO_LIST_NAME
    if list_file or source.is_file():
        annotations = read_annotations(source)
        samples = take(_locate_coco(path, source, annotations), count, source)
        dataset = _coco_dataset("coco", path, samples, subset(annotations, len(samples)))
        _tell_of_turned(dataset)
    else:
        dataset = _coco_dataset("coco", path, take(_scan_coco(path), count, path), None)
    if not dataset.has_labels:
        logger.warning(
            "%s: no annotations, so accuracy cannot be measured; they belong into %s", path, COCO_LIST_NAME
        )
    return dataset


def _tell_of_turned(dataset: Dataset) -> None:
    # COCO's own has none.
    paths = [] if dataset.is_complete else [sample.path for sample in dataset.samples]
    if found := turned(paths):
        logger.warning(
            "%d of %d images are turned or mirrored by their EXIF data, the first is %s: boxes are taken to "
            "be of the image as it is shown",
            *(len(found), len(paths), found[0]),
        )


def survey(path: Path, *, list_file: Path | None) -> tuple[str, ...]:
    """What keeps a set from being COCO's as far as its annotations tell; no image is opened.

    Raises:
        DatasetError: the annotations are bad.
    """
    source = list_file or path / COCO_LIST_NAME
    if not (list_file or source.is_file()):
        return shortfalls(0, is_complete=False, has_labels=False)
    found = read_annotations(source)
    return shortfalls(len(found.images), is_complete=is_val2017(found), has_labels=bool(found.annotations))


def open_synthetic_coco(root: Path, count: int) -> Dataset:
    """The same images for detectors: with COCO's categories and their sizes, but no objects.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the folder cannot be written.
    """
    return _coco_dataset("synthetic", root.absolute(), draw(root.absolute(), count), None)


def _coco_dataset(
    name: str, root: Path, samples: tuple[Sample, ...], annotations: Annotations | None
) -> Dataset:
    """Without annotations, the sizes are read from the files, once these are known to be images."""
    files = fingerprint(samples)
    annotations = annotations or of_files([sample.path for sample in samples])
    return Dataset(
        name=name,
        root=root,
        samples=samples,
        fingerprint=hashlib.sha256((files + digest(annotations)).encode()).hexdigest(),
        is_complete=is_val2017(annotations),
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
        images = sorted(image for image in files_of(folder) if image.suffix.lower() in IMAGE_SUFFIXES)
        if images:
            return [Sample(image, None) for image in images]
    raise DatasetError(
        f"no images in {path}: wanted val2017/*.jpg and {COCO_LIST_NAME}; "
        f"`./run.sh fetch coco2017` downloads them"
    )

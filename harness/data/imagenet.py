"""ImageNet, or what is laid out like it; synthetic images, which have no labels."""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from harness.machine.files import is_lfs_pointer

logger = logging.getLogger(__name__)

LIST_NAME = "val_map.txt"
CLASSES = 1000
_IMAGENET_SIZE = 50_000
# Of the labels in order, a line each, as in val.txt of caffe_ilsvrc12.tar.gz, which the reference uses.
_IMAGENET_LABELS_SHA256 = "098d797749a19d2c76f3243494b4d38079446eab41f3b8775212a33e4558a35f"


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
    check_count(count)
    path = path.absolute()
    samples, source = _find(path, list_file)
    samples = take(samples, count, source)
    dataset = _dataset("imagenet", path, samples)
    if not dataset.has_labels:
        logger.warning("%s: no labels, so accuracy cannot be measured; they belong into %s", path, LIST_NAME)
    return dataset


def survey(path: Path, *, list_file: Path | None) -> tuple[str, ...]:
    """What keeps a set from being ImageNet's as far as the names of its files tell; no image is opened.

    Raises:
        DatasetError: as `open_imagenet`.
    """
    samples, _ = _find(path.absolute(), list_file)
    return shortfalls(len(samples), is_complete=_is_imagenet(samples), has_labels=_are_labelled(samples))


def _find(path: Path, list_file: Path | None) -> tuple[Sequence[Sample], Path]:
    """The images and their labels, and where they are listed."""
    if not path.is_dir():
        raise DatasetError(
            f"dataset folder {path} does not exist; `./run.sh fetch imagenet` says what to put there"
        )
    source = list_file or path / LIST_NAME
    if list_file or source.is_file():
        return _locate(path, source, _read_list(source)), source
    return _scan(path), path


def open_synthetic(root: Path, count: int) -> Dataset:
    """Images that the tool draws itself; those that are not in `root` yet are drawn.

    Raises:
        ConfigError: `count` is less than 1.
        DatasetError: the folder cannot be written.
    """
    return _dataset("synthetic", root.absolute(), draw(root.absolute(), count))


def _dataset(name: str, root: Path, samples: tuple[Sample, ...]) -> Dataset:
    return Dataset(
        name=name,
        root=root,
        samples=samples,
        fingerprint=fingerprint(samples),
        is_complete=_is_imagenet(samples),
        has_labels=_are_labelled(samples),
    )


def _are_labelled(samples: Sequence[Sample]) -> bool:
    return all(sample.label is not None for sample in samples)


def _read_list(source: Path) -> list[tuple[str, int]]:
    try:
        if is_lfs_pointer(source):
            raise DatasetError(f"{source} is a Git LFS pointer, not the list: run `git lfs pull` there")
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
    columns = line.rsplit(maxsplit=1)  # a file's name may have spaces
    if len(columns) != 2:
        raise DatasetError(f"{where}: wants two columns, `file label`, not {line.strip()!r}")
    file, label = columns[0].strip(), columns[1]
    if not re.fullmatch(r"[0-9]{1,9}", label):
        raise DatasetError(
            f"{where}: the label must be a whole number from 0, of up to 9 digits, not {label!r}"
        )
    return file, int(label)


def _locate(path: Path, source: Path, entries: list[tuple[str, int]]) -> list[Sample]:
    """Where the listed files are; the first layout that has any of them is taken to be the one."""
    for folder in (path, path / "val"):
        if any((folder / file).is_file() for file, _ in entries):
            return [Sample(folder / file, label) for file, label in entries]
    by_name: dict[str, Path] = {}
    listed = {file for file, _ in entries}
    for image, _ in _synset_images(path):
        if image.name in listed and (other := by_name.get(image.name)):
            raise DatasetError(
                f"{source} names {image.name}, which is both {other} and {image}: name folder and file"
            )
        by_name[image.name] = image
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
        synsets = [entry for entry in files_of(folder) if re.fullmatch(r"n\d{8}", entry.name)]
        for synset in synsets:
            for image in files_of(synset):
                if image.suffix.lower() in IMAGE_SUFFIXES:
                    yield image, synset.name
        if synsets:
            return


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

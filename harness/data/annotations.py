"""COCO's annotations: reading and checking them, taking a part, making and writing others."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from harness.errors import DatasetError
from harness.machine.files import is_lfs_pointer, whole

# cocodataset.org's category list, in the order of its instances_*.json: eleven ids are not used.
COCO_CATEGORIES: tuple[tuple[int, str], ...] = (
    (1, "person"), (2, "bicycle"), (3, "car"), (4, "motorcycle"), (5, "airplane"), (6, "bus"),
    (7, "train"), (8, "truck"), (9, "boat"), (10, "traffic light"), (11, "fire hydrant"),
    (13, "stop sign"), (14, "parking meter"), (15, "bench"), (16, "bird"), (17, "cat"), (18, "dog"),
    (19, "horse"), (20, "sheep"), (21, "cow"), (22, "elephant"), (23, "bear"), (24, "zebra"),
    (25, "giraffe"), (27, "backpack"), (28, "umbrella"), (31, "handbag"), (32, "tie"), (33, "suitcase"),
    (34, "frisbee"), (35, "skis"), (36, "snowboard"), (37, "sports ball"), (38, "kite"),
    (39, "baseball bat"), (40, "baseball glove"), (41, "skateboard"), (42, "surfboard"),
    (43, "tennis racket"), (44, "bottle"), (46, "wine glass"), (47, "cup"), (48, "fork"), (49, "knife"),
    (50, "spoon"), (51, "bowl"), (52, "banana"), (53, "apple"), (54, "sandwich"), (55, "orange"),
    (56, "broccoli"), (57, "carrot"), (58, "hot dog"), (59, "pizza"), (60, "donut"), (61, "cake"),
    (62, "chair"), (63, "couch"), (64, "potted plant"), (65, "bed"), (67, "dining table"), (70, "toilet"),
    (72, "tv"), (73, "laptop"), (74, "mouse"), (75, "remote"), (76, "keyboard"), (77, "cell phone"),
    (78, "microwave"), (79, "oven"), (80, "toaster"), (81, "sink"), (82, "refrigerator"), (84, "book"),
    (85, "clock"), (86, "vase"), (87, "scissors"), (88, "teddy bear"), (89, "hair drier"),
    (90, "toothbrush"),
)  # fmt: skip

_VAL2017_IMAGES = 5_000
_VAL2017_ANNOTATIONS = 36_781
_BEYOND_PX = 1
"""A box may end so far outside of its image: some count pixels from 1."""
_MOST_BEYOND = 0.1
"""Share of the boxes that may end farther outside: hardly any does in a set that is what it says."""
_SHARES = 2.0
"""Pixels that no object of any image is larger than where boxes are shares of the image."""
_EXIF_ORIENTATION = 0x0112
_FIRST_SIDEWAYS = 5
"""EXIF orientations from here on swap height and width."""


@dataclass(frozen=True)
class CocoImage:
    """One image; height and width are in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Annotations:
    """The true objects of a list of images."""

    images: tuple[CocoImage, ...]
    """In the file's order, which is that of LoadGen's sample indices."""
    annotations: tuple[Mapping[str, Any], ...]
    """One per object, with the fields that the evaluation of boxes reads (no outlines)."""
    category_ids: tuple[int, ...]
    """In the file's order: contiguous class k means the k-th."""
    category_names: tuple[str, ...]

    @property
    def sizes_px(self) -> list[tuple[int, int]]:
        """(height, width) of each image."""
        return [(image.height, image.width) for image in self.images]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_above_zero(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_from_zero(value: Any) -> bool:
    return _is_whole(value) and value >= 0


_HUGE = 1e12
"""No size, place or area in an image is as large."""


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < _HUGE


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_FIELDS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "images": {"id": _is_whole, "file_name": _is_text, "height": _is_above_zero, "width": _is_above_zero},
    "annotations": {
        "id": _is_from_zero,
        "image_id": _is_whole,
        "category_id": _is_whole,
        "bbox": _is_box,
        "area": _is_number,
        "iscrowd": lambda value: value in (0, 1),
    },
    "categories": {"id": _is_whole, "name": _is_text},
}


_DEFAULTS: Mapping[str, Any] = {"iscrowd": 0}


def read_annotations(path: Path) -> Annotations:
    """Read and check an instances_*.json file.

    Raises:
        DatasetError: missing, cut off, incomplete or contradictory; says which record.
    """
    document = _load(path)
    images, annotations, categories = (_records(document, key, path) for key in _FIELDS)
    if not images:
        raise DatasetError(f"{path} lists no images")
    for key, records in (("images", images), ("annotations", annotations), ("categories", categories)):
        _check_unique(records, key, path)
    for key, records in (("image_id", images), ("category_id", categories)):
        known = {record["id"] for record in records}
        for annotation in annotations:
            if annotation[key] not in known:
                raise DatasetError(
                    f"{path}: annotation {annotation['id']} has the {key} {annotation[key]}, which the file "
                    f"does not list; cut images, categories and annotations down together"
                )
    _check_boxes(images, annotations, path)
    return Annotations(
        images=tuple(CocoImage(**image) for image in images),
        annotations=tuple(_ids_above_zero(annotations)),
        category_ids=tuple(category["id"] for category in categories),
        category_names=tuple(category["name"] for category in categories),
    )


def _check_boxes(images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], path: Path) -> None:
    """See that boxes are places and sizes in pixels of their images; some that are not may be mistakes.

    Raises:
        DatasetError: many are not; names the first.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    wanted = "COCO's are left, top, width, height in pixels of the image"
    beyond = [each for each in annotations if _is_beyond(each["bbox"], sizes[each["image_id"]])]
    if len(beyond) > _MOST_BEYOND * len(annotations):
        first, (width, height) = beyond[0], sizes[beyond[0]["image_id"]]
        raise DatasetError(
            f"{path}: {len(beyond)} of {len(annotations)} boxes end outside of their images, the first in "
            f"annotation {first['id']} ({first['bbox']} in {width}x{height} pixels): they are corners, or of "
            f"images of another size; {wanted}"
        )
    if annotations and all(max(annotation["bbox"][2:]) < _SHARES for annotation in annotations):
        raise DatasetError(
            f"{path}: no box is as large as {_SHARES:g} pixels, so they are shares of the image's sides; "
            f"{wanted}"
        )


def _is_beyond(box: Sequence[float], size_px: tuple[int, int]) -> bool:
    """Whether a box ends outside of an image of (width, height) pixels."""
    ends = (start + length for start, length in zip(box[:2], box[2:], strict=True))
    return any(end > side + _BEYOND_PX for end, side in zip(ends, size_px, strict=True))


def _ids_above_zero(annotations: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The same objects, numbered from 1 if one of them has the id 0."""
    if all(annotation["id"] > 0 for annotation in annotations):
        return annotations
    # pycocotools takes an object with the id 0 for one that was not found.
    return [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)]


def _load(path: Path) -> dict[str, Any]:
    try:
        if is_lfs_pointer(path):
            raise DatasetError(f"{path} is a Git LFS pointer, not the annotations: run `git lfs pull` there")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read the annotations {path}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        is_cut_off = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string")
        what = "is cut off" if is_cut_off else "is not JSON"
        raise DatasetError(
            f"the annotations {path}: the file {what} ({error.msg}, line {error.lineno}, column "
            f"{error.colno}); get it again, e.g. ./run.sh fetch coco2017"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or a number of thousands of digits
        raise DatasetError(f"the annotations {path}: the file is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} is not a COCO annotation file: no {', '.join(_FIELDS)} in it")
    return document


def _records(document: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """The records under a key, each reduced to the fields that are used and checked."""
    records = document.get(key)
    if not isinstance(records, list):
        raise DatasetError(f"{path} is not a COCO annotation file: it has no list {key!r}")
    return [_record(record, _FIELDS[key], f"{path}: {key}[{at}]") for at, record in enumerate(records)]


def _record(record: Any, fields: Mapping[str, Callable[[Any], bool]], where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DatasetError(f"{where} is {record!r:.40}, not a record with {', '.join(fields)}")
    # As pycocotools' own users leave it out where nothing is a crowd.
    record = {**_DEFAULTS, **record} if "iscrowd" in fields else record
    for field, is_good in fields.items():
        if field not in record:
            raise DatasetError(f"{where} (id {record.get('id', 'missing')}) has no {field!r}")
        if not is_good(record[field]):
            raise DatasetError(
                f"{where} (id {record.get('id')}) has the {field} {record[field]!r:.60}, which cannot be"
            )
    return {field: record[field] for field in fields}


def _check_unique(records: Iterable[Mapping[str, Any]], key: str, path: Path) -> None:
    seen: set[int] = set()
    for at, record in enumerate(records):
        if record["id"] in seen:
            raise DatasetError(f"{path}: {key}[{at}] has the id {record['id']}, which another one has too")
        seen.add(record["id"])


def subset(annotations: Annotations, count: int) -> Annotations:
    """The first `count` images with their annotations, and all categories."""
    images = annotations.images[:count]
    kept = {image.id for image in images}
    return replace(
        annotations,
        images=images,
        annotations=tuple(entry for entry in annotations.annotations if entry["image_id"] in kept),
    )


def of_files(paths: Sequence[Path]) -> Annotations:
    """COCO's categories and the real sizes of these images, which nobody has annotated; ids from 1.

    Raises:
        DatasetError: the size of an image cannot be read; names it.
    """
    images = []
    for number, path in enumerate(paths, 1):
        height, width = _size_px(path)
        images.append(CocoImage(number, path.name, height, width))
    ids, names = zip(*COCO_CATEGORIES, strict=True)
    return Annotations(tuple(images), (), ids, names)


def turned(paths: Sequence[Path]) -> list[Path]:
    """Images that their EXIF data turns, or mirrors, when they are shown.

    Boxes drawn on pixels as they are stored are not where they should be then, though the size may be right.
    """
    return [path for path in paths if _orientation(path) != 1]


def _orientation(path: Path) -> int:
    """EXIF's; 1 of what is no image, which others see to."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return 1


def _size_px(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, turned as its EXIF data says: so OpenCV decodes it."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_sideways = image.getexif().get(_EXIF_ORIENTATION, 1) >= _FIRST_SIDEWAYS
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot read the size of {path}: {error}") from error
    return (width, height) if is_sideways else (height, width)


def write_annotations(annotations: Annotations, path: Path) -> None:
    """Write an instances_*.json file, whole or not at all.

    Raises:
        DatasetError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(json.dumps(_document(annotations)), encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"cannot write the annotations {path}: {error.strerror or error}") from error


def digest(annotations: Annotations) -> str:
    """Hash of all that is in there."""
    return hashlib.sha256(json.dumps(_document(annotations), sort_keys=True).encode()).hexdigest()


def _document(annotations: Annotations) -> dict[str, Any]:
    return {
        "images": [vars(image) for image in annotations.images],
        "annotations": [dict(entry) for entry in annotations.annotations],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(annotations.category_ids, annotations.category_names, strict=True)
        ],
    }


def is_val2017(annotations: Annotations) -> bool:
    """Whether these are the images and annotations of COCO's whole validation set of 2017."""
    categories = tuple(zip(annotations.category_ids, annotations.category_names, strict=True))
    sizes = (len(annotations.images), len(annotations.annotations))
    return sizes == (_VAL2017_IMAGES, _VAL2017_ANNOTATIONS) and categories == COCO_CATEGORIES

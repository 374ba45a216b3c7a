"""Pictures of what a detector found, for a look with one's own eyes."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from harness.answers import boxes
from harness.answers.boxes import MIN_SCORE, MOST_BOXES, Boxes
from harness.data.annotations import Annotations, subset
from harness.data.dataset import Dataset
from harness.data.preprocess import U8Image, decode
from harness.errors import ConfigError
from harness.machine import progress

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SIDE_PER_SCALE_PX = 900
"""Short side of a picture on which text has the font's full size, 22 px."""
_MIN_FONT_SCALE = 0.45
_HUE_STEP, _SHADES = 0.618034, (1.0, 0.83, 0.66)
"""Steps of the golden ratio keep hues apart; classes whose hues come close have another shade."""
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_BRIGHT = 140
"""Luma (0-255) from which on black text reads better than white."""

_GAP_PX = 4
"""Between what was found and the truth."""

Colour = tuple[int, int, int]
"""BGR"""
_Area = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class _Mark:
    """One box to draw; corners in pixels."""

    left: int
    top: int
    right: int
    bottom: int
    text: str
    colour: Colour


def save_pictures(
    folder: Path,
    dataset: Dataset,
    payloads: Mapping[int, bytes],
    count: int,
    *,
    is_contiguous: bool,
    truth: Annotations | None = None,
) -> list[Path]:
    """Write the first images of a COCO data set with the boxes that were found in them.

    Args:
        folder: made if missing; a picture is named `<sample index>_<name of the image>.jpg`.
        dataset: with annotations, which have the names of the classes.
        payloads: logged bytes by sample index (see `boxes.collect`).
        count: how many pictures; fewer if the data set is smaller.
        is_contiguous: whether class k means the k-th category, instead of a COCO id.
        truth: the true objects, drawn into the same image beside the other.

    Returns:
        The files, in the order of the samples.

    Raises:
        ConfigError: the pictures cannot be written.
        DatasetError: an image cannot be read.
        InferenceError: samples are missing, or a payload is not a list of detections.
    """
    assert dataset.coco is not None
    annotations = subset(dataset.coco, count)
    names = dict(zip(annotations.category_ids, annotations.category_names, strict=True))
    found = boxes.collect(
        payloads, annotations.sizes_px, annotations.category_ids, is_contiguous=is_contiguous
    )
    files = []
    samples = dataset.samples[:count]
    for index, sample in enumerate(progress.track(samples, "drawing boxes", len(samples))):
        image = decode(sample.path)
        picture = _drawn(image, _found_marks(found, index, names))
        if truth:
            picture = _beside(picture, _drawn(image, _true_marks(truth, index, names)))
        files.append(folder / f"{index}_{sample.path.stem}.jpg")
        _write(picture, files[-1])
    return files


def _found_marks(found: Boxes, index: int, names: Mapping[int, str]) -> list[_Mark]:
    """What to draw on one picture, the best last: on top of the others."""
    shown = np.flatnonzero((found.sample_indices == index) & (found.scores >= MIN_SCORE))
    best = shown[np.argsort(-found.scores[shown], kind="stable")[:MOST_BOXES]]
    return [
        _mark(found.xywh_px[at].tolist(), int(found.category_ids[at]), names, float(found.scores[at]))
        for at in best[::-1].tolist()
    ]


def _true_marks(truth: Annotations, index: int, names: Mapping[int, str]) -> list[_Mark]:
    """The same of the true objects, of which those have scores that a detector found."""
    image_id = truth.images[index].id
    objects = [entry for entry in truth.annotations if entry["image_id"] == image_id]
    shown = [entry for entry in objects if entry.get("score", 1.0) >= MIN_SCORE]
    best = sorted(shown, key=lambda entry: -entry.get("score", 1.0))[:MOST_BOXES]
    return [_mark(one["bbox"], one["category_id"], names, one.get("score")) for one in best[::-1]]


def _mark(xywh_px: Sequence[float], category: int, names: Mapping[int, str], score: float | None) -> _Mark:
    left, top, width, height = xywh_px
    text = names.get(category, f"class {category}") + (f" {score:.2f}" if score is not None else "")
    corners = (round(left), round(top), round(left + width), round(top + height))
    return _Mark(*corners, text, _colour(category))


def _colour(category: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(category * _HUE_STEP % 1, 0.85, _SHADES[category % 3])
    return round(255 * blue), round(255 * green), round(255 * red)


def _drawn(image: U8Image, marks: Sequence[_Mark]) -> U8Image:
    """A copy with all boxes, and their labels where there is room for them; the last mark has the choice."""
    picture = image.copy()
    height, width = picture.shape[:2]
    thickness = max(2, min(height, width) // 240)
    for mark in marks:
        left, right = (min(max(x, 0), width - 1) for x in (mark.left, mark.right))
        top, bottom = (min(max(y, 0), height - 1) for y in (mark.top, mark.bottom))
        cv2.rectangle(picture, (left, top), (right, bottom), mark.colour, thickness)
    taken: list[_Area] = []
    for mark in reversed(marks):
        if area := _room(picture, mark, taken):
            taken.append(area)
            _label(picture, mark, area)
    return picture


def _scale(picture: U8Image) -> float:
    """Of the font."""
    return max(_MIN_FONT_SCALE, min(picture.shape[:2]) / _SIDE_PER_SCALE_PX)


def _room(picture: U8Image, mark: _Mark, taken: Sequence[_Area]) -> _Area | None:
    """Where a label covers no other: above its box or just inside, else the nearest row that is free."""
    height, width = picture.shape[:2]
    (text_width, text_height), descent = cv2.getTextSize(mark.text, _FONT, _scale(picture), 1)
    label_width, label_height = text_width + 4, text_height + descent + 4
    left = max(0, min(mark.left, width - 1, width - label_width))
    top = min(max(mark.top, 0), height - 1)
    lowest = max(0, height - label_height)
    wanted = top - label_height if top >= label_height else min(top, lowest)
    rows = sorted(range(lowest + 1), key=lambda row: abs(row - wanted))
    areas = ((left, row, left + label_width, row + label_height) for row in rows)
    return next((area for area in areas if not any(_meet(area, other) for other in taken)), None)


def _meet(one: _Area, other: _Area) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _label(picture: U8Image, mark: _Mark, area: _Area) -> None:
    left, top, right, bottom = area
    scale = _scale(picture)
    _, descent = cv2.getTextSize(mark.text, _FONT, scale, 1)
    cv2.rectangle(picture, (left, top), (right, bottom), mark.colour, cv2.FILLED)
    blue, green, red = mark.colour
    ink = _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red >= _BRIGHT else _WHITE  # ITU-R BT.601
    base = (left + 2, bottom - 2 - descent)
    cv2.putText(picture, mark.text, base, _FONT, scale, ink, 1, cv2.LINE_AA)


def _beside(found: U8Image, true: U8Image) -> U8Image:
    """Two pictures in one, each below its name."""
    panels = []
    for name, picture in (("found", found), ("truth", true)):
        scale = _scale(picture)
        (_, text_height), descent = cv2.getTextSize(name, _FONT, scale, 1)
        band = np.zeros((text_height + descent + 6, picture.shape[1], 3), np.uint8)
        cv2.putText(band, name, (4, 3 + text_height), _FONT, scale, _WHITE, 1, cv2.LINE_AA)
        panels.append(np.concatenate([band, picture]))
    gap = np.zeros((panels[0].shape[0], _GAP_PX, 3), np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def _write(picture: U8Image, file: Path) -> None:
    is_done, jpeg = cv2.imencode(".jpg", picture)
    assert is_done
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg.tobytes())
    except OSError as error:
        raise ConfigError(f"cannot write the picture {file}: {error.strerror or error}") from error

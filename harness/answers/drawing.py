"""Pictures of what a detector found, for a look with one's own eyes."""

import colorsys
from collections.abc import Mapping
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

Colour = tuple[int, int, int]
"""BGR"""


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
    folder: Path, dataset: Dataset, payloads: Mapping[int, bytes], count: int, *, is_contiguous: bool
) -> list[Path]:
    """Write the first images of a COCO data set with the boxes that were found in them.

    Args:
        folder: made if missing; a picture is named `<sample index>_<name of the image>.jpg`.
        dataset: with annotations, which have the names of the classes.
        payloads: logged bytes by sample index (see `boxes.collect`).
        count: how many pictures; fewer if the data set is smaller.
        is_contiguous: whether class k means the k-th category, instead of a COCO id.

    Returns:
        The files, in the order of the samples.

    Raises:
        ConfigError: the pictures cannot be written.
        DatasetError: an image cannot be read.
        InferenceError: samples are missing, or a payload is not a list of detections.
    """
    assert dataset.coco is not None
    annotations = subset(dataset.coco, count)
    found = boxes.collect(
        payloads, annotations.sizes_px, annotations.category_ids, is_contiguous=is_contiguous
    )
    files = []
    samples = dataset.samples[:count]
    for index, sample in enumerate(progress.track(samples, "drawing boxes", len(samples))):
        picture = decode(sample.path)
        for mark in _marks(found, index, annotations):
            _draw(picture, mark)
        files.append(folder / f"{index}_{sample.path.stem}.jpg")
        _write(picture, files[-1])
    return files


def _marks(found: Boxes, index: int, annotations: Annotations) -> list[_Mark]:
    """What to draw on one picture, the best last: on top of the others."""
    names = dict(zip(annotations.category_ids, annotations.category_names, strict=True))
    shown = np.flatnonzero((found.sample_indices == index) & (found.scores >= MIN_SCORE))
    best = shown[np.argsort(-found.scores[shown], kind="stable")[:MOST_BOXES]]
    marks = []
    for at in best[::-1].tolist():
        left, top, width, height = found.xywh_px[at].tolist()
        category = int(found.category_ids[at])
        text = f"{names.get(category, f'class {category}')} {found.scores[at]:.2f}"
        corners = (round(left), round(top), round(left + width), round(top + height))
        marks.append(_Mark(*corners, text, _colour(category)))
    return marks


def _colour(category: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(category * _HUE_STEP % 1, 0.85, _SHADES[category % 3])
    return round(255 * blue), round(255 * green), round(255 * red)


def _draw(picture: U8Image, mark: _Mark) -> None:
    """Draw a box and, above it or else just inside, its label, all within the picture."""
    height, width = picture.shape[:2]
    left, right = (min(max(x, 0), width - 1) for x in (mark.left, mark.right))
    top, bottom = (min(max(y, 0), height - 1) for y in (mark.top, mark.bottom))
    thickness = max(2, min(height, width) // 240)
    cv2.rectangle(picture, (left, top), (right, bottom), mark.colour, thickness)

    scale = max(_MIN_FONT_SCALE, min(height, width) / _SIDE_PER_SCALE_PX)
    (text_width, text_height), descent = cv2.getTextSize(mark.text, _FONT, scale, 1)
    label_height = text_height + descent + 4
    label_left = max(0, min(left, width - text_width - 4))
    label_top = top - label_height if top >= label_height else min(top, max(0, height - label_height))
    corner = (label_left + text_width + 4, label_top + label_height)
    cv2.rectangle(picture, (label_left, label_top), corner, mark.colour, cv2.FILLED)
    blue, green, red = mark.colour
    ink = _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red >= _BRIGHT else _WHITE  # ITU-R BT.601
    base = (label_left + 2, label_top + 2 + text_height)
    cv2.putText(picture, mark.text, base, _FONT, scale, ink, 1, cv2.LINE_AA)


def _write(picture: U8Image, file: Path) -> None:
    is_done, jpeg = cv2.imencode(".jpg", picture)
    assert is_done
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg.tobytes())
    except OSError as error:
        raise ConfigError(f"cannot write the picture {file}: {error.strerror or error}") from error

"""Boxes as detectors answer them, from and to corners in shares of the image: ymin, xmin, ymax, xmax."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.models.spec import BoxOrder, Detection

Boxes = npt.NDArray[Any]
"""(..., 4)"""

_SIZED = (BoxOrder.XYWH, BoxOrder.CXCYWH)


def reader(detection: Detection, size_px: tuple[int, int]) -> Callable[[Boxes], Boxes]:
    """Choose how answered boxes become corners.

    Args:
        detection: says what the numbers are.
        size_px: (height, width) of the network's input, to which the whole image was stretched.
    """
    order, sides = _order(detection), np.tile(np.asarray(size_px, np.float32), 2)
    is_sized, is_centred = detection.box_order in _SIZED, detection.box_order == BoxOrder.CXCYWH
    if not is_sized and not detection.are_pixels:
        return lambda boxes: boxes[..., order]

    def read(boxes: Boxes) -> Boxes:
        corners = boxes[..., order].astype(np.float32)
        if is_centred:
            corners[..., :2] -= corners[..., 2:] / 2
        if is_sized:
            corners[..., 2:] += corners[..., :2]
        return corners / sides if detection.are_pixels else corners

    return read


def as_answered(corners: Boxes, detection: Detection, size_px: tuple[int, int]) -> Boxes:
    """What a detector answered whose boxes were read as these corners: the way back of `reader`."""
    answered = corners.astype(np.float32)
    if detection.are_pixels:
        answered *= np.tile(np.asarray(size_px, np.float32), 2)
    if detection.box_order in _SIZED:
        answered[..., 2:] -= answered[..., :2]
    if detection.box_order == BoxOrder.CXCYWH:
        answered[..., :2] += answered[..., 2:] / 2
    return answered[..., _order(detection)]


def _order(detection: Detection) -> list[int]:
    """Where y comes first; its own inverse."""
    return [0, 1, 2, 3] if detection.box_order == BoxOrder.YXYX else [1, 0, 3, 2]

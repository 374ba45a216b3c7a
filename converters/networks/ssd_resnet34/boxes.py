"""SSD-ResNet34's default boxes, which its heads move and stretch; numpy only."""

import numpy as np
from numpy.typing import NDArray

from converters.networks.ssd_resnet34.network import ANCHORS

SCORE_THRESHOLD = 0.05
IOU_THRESHOLD = 0.5
MOST_PER_CLASS = 200
"""The reference's decoder looks at no more boxes of one class, and returns no more over all (`SLOTS`)."""

CENTRE_VARIANCE = 0.1
"""A location's first two numbers count in tenths of the default box's size."""
SIZE_VARIANCE = 0.2
"""Its last two are logarithms, in fifths."""

BOXES = 15_130

_SIZE_PX = 1200
_MAP_SIZES = (50, 25, 13, 7, 3, 3)
_SCALES_300 = (21, 45, 99, 153, 207, 261, 315)
"""Sides of the boxes in an image of 300 pixels; each map takes one and the geometric mean with the next."""
_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))


def default_boxes() -> NDArray[np.float32]:
    """Centre x, centre y, width, height as shares of the image, cut off at 1.

    Arithmetic: MLCommons' inference repository, vision/classification_and_detection/python/models/
    ssd_r34.py (`dboxes_R34_coco`).

    Returns:
        (15130, 4) float32, in the order of the heads' outputs: map, shape, row, column.
    """
    scales = [scale * _SIZE_PX // 300 for scale in _SCALES_300]
    maps = []
    for index, size in enumerate(_MAP_SIZES):
        shapes = _shapes(scales[index] / _SIZE_PX, scales[index + 1] / _SIZE_PX, _RATIOS[index])
        assert len(shapes) == ANCHORS[index]
        centres = (np.arange(size) + 0.5) / (_SIZE_PX // (_SIZE_PX // size))
        boxes = np.empty((len(shapes), size, size, 4))
        boxes[..., 0] = centres[None, None, :]
        boxes[..., 1] = centres[None, :, None]
        boxes[..., 2:] = np.array(shapes)[:, None, None, :]
        maps.append(boxes.reshape(-1, 4))
    result: NDArray[np.float32] = np.concatenate(maps).clip(0, 1).astype(np.float32)
    return result


def _shapes(side: float, next_side: float, ratios: tuple[int, ...]) -> list[tuple[float, float]]:
    """(width, height) of the boxes around one centre."""
    between = float(np.sqrt(side * next_side))
    shapes = [(side, side), (between, between)]
    for ratio in ratios:
        long, short = side * float(np.sqrt(ratio)), side / float(np.sqrt(ratio))
        shapes += [(long, short), (short, long)]
    return shapes

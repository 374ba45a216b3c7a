"""The boxes that SSD-MobileNet's predictions are relative to.

Rule and numbers: the TensorFlow Object Detection API's `ssd_anchor_generator` as ssd_mobilenet_v1_coco's
pipeline.config sets it up.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FEATURE_MAPS_PX = (19, 10, 5, 3, 2, 1)
"""Sides of the feature maps of a 300x300 image, lowest layer first."""

_MIN_SCALE, _MAX_SCALE = 0.2, 0.95
_ASPECT_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
_LOWEST_LAYER = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))
"""(scale, width by height): `reduce_boxes_in_lowest_layer` leaves three, one of them small."""


def boxes_per_cell() -> tuple[int, ...]:
    """Anchors in each position of each feature map."""
    return tuple(len(layer) for layer in _layers())


def mobilenet_anchors() -> NDArray[np.float32]:
    """The anchors in the order of the predictions: by layer, row, column, shape.

    Returns:
        (1917, 4) float32: centre y, centre x, height, width, as shares of the image.
    """
    parts = []
    for side_px, layer in zip(FEATURE_MAPS_PX, _layers(), strict=True):
        scales, ratios = np.array(layer).T
        sizes = np.stack([scales / np.sqrt(ratios), scales * np.sqrt(ratios)], axis=1)
        centres = (np.arange(side_px) + 0.5) / side_px
        rows, columns = np.meshgrid(centres, centres, indexing="ij")
        places = np.stack([rows, columns], axis=2).reshape(-1, 1, 2)
        cells = np.broadcast_to(places, (side_px**2, len(layer), 2))
        shapes = np.broadcast_to(sizes, (side_px**2, len(layer), 2))
        parts.append(np.concatenate([cells, shapes], axis=2).reshape(-1, 4))
    anchors: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return anchors


def _layers() -> tuple[tuple[tuple[float, float], ...], ...]:
    """(scale, width by height) of each anchor in a position, for each feature map."""
    steps = len(FEATURE_MAPS_PX) - 1
    scales = [_MIN_SCALE + (_MAX_SCALE - _MIN_SCALE) * step / steps for step in range(steps + 1)] + [1.0]
    upper = [
        (*((scale, ratio) for ratio in _ASPECT_RATIOS), (float(np.sqrt(scale * following)), 1.0))
        for scale, following in pairwise(scales[1:])
    ]
    return (_LOWEST_LAYER, *upper)

"""The images on which exports are compared with their sources, and seeded weights calibrated."""

import numpy as np

from converters.formats.graph import Array
from harness.data import preprocess, synthetic
from harness.models.spec import Preprocess

_FIRST_INDEX = 1_000_000
"""Drawn images from here on are ours: no data set that anyone benchmarks with is as large."""


def fixed_inputs(recipe: Preprocess, count: int, first: int = 0) -> Array:
    """Drawn images as a model takes them.

    Returns:
        (count, *recipe.shape) in recipe.dtype; the same ones each time.
    """
    indices = range(_FIRST_INDEX + first, _FIRST_INDEX + first + count)
    return np.stack([preprocess.apply(_draw(index), recipe) for index in indices])


def _draw(index: int) -> synthetic.U8Image:
    image = synthetic.draw(index)
    # Some are greyscale; decoding a file would give them three equal channels.
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)

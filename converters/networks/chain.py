"""A network without branches, as plain arrays: what the PyTorch converter reads out of a TensorFlow graph."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Activation(StrEnum):
    """What follows a convolution."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"


@dataclass(frozen=True)
class Convolution:
    """One convolution with everything linear around it folded in."""

    name: str
    weights: NDArray[np.float32]
    """(kernel height, kernel width, in, out), or (kernel height, kernel width, channels, 1) if depthwise."""
    bias: NDArray[np.float32]
    """(out,)"""
    is_depthwise: bool
    stride: int
    rows: tuple[int, int]
    """Zeros above and below."""
    columns: tuple[int, int]
    """Zeros left and right."""
    activation: Activation


@dataclass(frozen=True)
class Chain:
    """Convolutions, the mean over all positions, a classifier, and perhaps a softmax."""

    body: tuple[Convolution, ...]
    classifier: NDArray[np.float32]
    """(features, classes)"""
    bias: NDArray[np.float32]
    """(classes,)"""
    ends_in_softmax: bool

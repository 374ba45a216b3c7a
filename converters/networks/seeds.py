"""Weights from a fixed seed, for networks whose published weights cannot be had. numpy only.

Plain random weights make a network that answers every image alike. So each batch normalisation gets the
statistics of a few drawn images, and the classifier looks at the directions in which their features differ.

They also make one that blows rounding errors up, until the frameworks disagree about which class is first.
What tames it: activations that are mostly in the linear part of the ReLU, depthwise kernels that are mostly
their centre, and residual branches weaker than the shortcut. Rounding errors are then about a millionth of
the differences between images (a hundred-thousandth without).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from converters.inputs import fixed_inputs
from converters.networks import architectures
from converters.networks.architectures import Layer, Norm, Padding, pad_widths
from harness.models.recipes import IMAGENET, IMAGENET_MOBILENET
from harness.models.spec import Preprocess

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]
"""`<layer>/<part>` -> array; parts: weights (kh, kw, in, out), gamma, beta, mean, variance, bias."""

RECIPE_VERSION = 1
"""Part of the seeded files' names: raise it when a change here makes other weights."""

CLASSES = 1001
"""Background and ImageNet's thousand."""

CLASSIFIER = "classifier"
_BACKGROUND_BIAS = -30.0
"""Class 0 is no ImageNet label, so it must never win."""

_LOGIT_STD = 4.0
_DIRECTIONS = 16
_SEED = 1
_CALIBRATION_IMAGES = 48
FIRST_CALIBRATION_IMAGE = 1000
"""Others than the ones on which exports are compared with their sources."""

_BETA = 1.0
"""Puts five activations of six into the linear part of the ReLU."""

_BRANCH_GAMMA = 0.3
"""Weight of a residual branch against its shortcut."""

_CENTRE = 0.9
"""Share of a depthwise kernel's norm that is its centre."""


def seed_resnet50() -> Arrays:
    """ResNet-50 v1.5 for TensorFlow's input: RGB 0-255 less the channel means."""
    return _seed(architectures.resnet50, IMAGENET)


def seed_mobilenet() -> Arrays:
    """MobileNet-v1 1.0 for an input of -1 to 1."""
    return _seed(architectures.mobilenet, IMAGENET_MOBILENET)


def _seed(body: Callable[["Seeder", Floats], Floats], recipe: Preprocess) -> Arrays:
    seeder = Seeder(np.random.default_rng(_SEED))
    images = fixed_inputs(recipe, _CALIBRATION_IMAGES, first=FIRST_CALIBRATION_IMAGE)
    features = body(seeder, images).mean(axis=(1, 2), dtype=np.float64)
    weights, bias = _classifier(seeder.rng, features)
    return {**seeder.arrays, f"{CLASSIFIER}/weights": weights, f"{CLASSIFIER}/bias": bias}


def _classifier(rng: np.random.Generator, features: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """(features, 1001) and (1001,): random mixtures of the features' strongest directions, equalised."""
    mean = features.mean(axis=0)
    _, strengths, directions = np.linalg.svd(features - mean, full_matrices=False)
    strengths = strengths / np.sqrt(len(features))
    mixtures = rng.standard_normal((_DIRECTIONS, CLASSES))
    mixtures *= _LOGIT_STD / np.linalg.norm(mixtures, axis=0)
    weights = (directions[:_DIRECTIONS].T / strengths[:_DIRECTIONS]) @ mixtures
    weights[:, 0] = 0
    bias = -mean @ weights
    bias[0] = _BACKGROUND_BIAS
    return weights.astype(np.float32), bias.astype(np.float32)


@dataclass
class Seeder:
    """`architectures.Operations` on NHWC arrays, inventing the weights of each layer when it is reached."""

    rng: np.random.Generator
    arrays: Arrays = field(default_factory=dict)
    branch_end: str = ".bn3"
    """How the names of the normalisations end that a residual branch ends with."""

    def conv(self, x: Floats, layer: Layer) -> Floats:
        """Convolve with new weights, then normalise, or spread the answers as a normalisation would."""
        x = self.convolve(x, layer)
        return self.normalise(x, layer.norm) if layer.norm else self.rescale(x, layer, 1.0, _BETA)

    def convolve(self, x: Floats, layer: Layer) -> Floats:
        """Convolve with new weights, without what follows."""
        weights = self._depthwise_weights(layer) if layer.is_depthwise else self._weights(layer)
        self.arrays[f"{layer.name}/weights"] = weights
        if layer.is_depthwise:
            return convolve_depthwise(x, weights, layer.stride)
        return convolve(x, weights, layer.stride, layer.padding)

    def _weights(self, layer: Layer) -> Floats:
        kernel, inputs = layer.kernel, layer.inputs
        weights = self._he((kernel, kernel, inputs, layer.filters), fan_in=kernel * kernel * inputs)
        # The input's own scale (0-255) is undone here, so that the normalisation's statistics are near 1.
        return weights / np.float32(64) if layer.name == "conv1" else weights

    def _depthwise_weights(self, layer: Layer) -> Floats:
        kernel = layer.kernel
        weights = self._he((kernel, kernel, layer.inputs, 1), fan_in=kernel * kernel)
        weights *= np.float32(np.sqrt(1 - _CENTRE**2))
        weights[kernel // 2, kernel // 2] += np.float32(_CENTRE * np.sqrt(2.0))
        return weights

    def _he(self, shape: tuple[int, ...], fan_in: int) -> Floats:
        weights: Floats = (self.rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
        return weights

    def normalise(self, x: Floats, norm: Norm) -> Floats:
        """Normalise with the statistics of `x` itself, which become the stored ones."""
        channels = x.shape[3]
        mean = x.mean(axis=(0, 1, 2), dtype=np.float64)
        variance = np.square(x - mean.astype(np.float32)).mean(axis=(0, 1, 2), dtype=np.float64)
        # Different for each channel, so that an export which loses them is noticed.
        weight = _BRANCH_GAMMA if norm.name.endswith(self.branch_end) else 1.0
        gamma = self.rng.uniform(0.8, 1.2, channels) * weight
        beta = self.rng.normal(_BETA, 0.1, channels)
        parts = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        self.arrays |= {f"{norm.name}/{part}": value.astype(np.float32) for part, value in parts.items()}
        scale = gamma / np.sqrt(variance + norm.epsilon)
        normalised: Floats = x * scale.astype(np.float32) + (beta - mean * scale).astype(np.float32)
        return normalised

    def rescale(self, x: Floats, layer: Layer, std: float, mean: float) -> Floats:
        """Scale a layer's weights, and set its bias, so that its answers `x` would have been so spread.

        One scale for all filters: small feature maps have few positions to tell each filter's own from.
        """
        means = x.mean(axis=(0, 1, 2), dtype=np.float64)
        scale = std / np.sqrt(np.square(x - means).mean())
        bias = (mean - means * scale).astype(np.float32)
        self.arrays[f"{layer.name}/weights"] *= np.float32(scale)
        self.arrays[f"{layer.name}/bias"] = bias
        rescaled: Floats = x * np.float32(scale) + bias
        return rescaled

    def relu(self, x: Floats, *, limit: float | None = None) -> Floats:
        """Clip below zero and above `limit`."""
        clipped: Floats = np.clip(x, 0, limit)
        return clipped

    def add(self, x: Floats, y: Floats) -> Floats:
        """Sum of two arrays."""
        return x + y

    def max_pool(self, x: Floats, padding: Padding) -> Floats:
        """Largest of each 3x3, stride 2; zero padding is harmless after a ReLU."""
        windows = _windows(x, 3, 2, padding)
        return np.ascontiguousarray(windows.max(axis=(4, 5)))


def convolve(x: Floats, weights: Floats, stride: int, padding: Padding) -> Floats:
    """(n, h, w, in) with (k, k, in, out) -> (n, h / stride, w / stride, out)."""
    kernel, _, _, filters = weights.shape
    matrix = weights.reshape(-1, filters)
    # One image at a time: a patch matrix of the whole batch would take gigabytes.
    results = []
    for image in x:
        windows = _windows(image[None], kernel, stride, padding)
        patches = windows.transpose(0, 1, 2, 4, 5, 3)
        results.append((patches.reshape(-1, matrix.shape[0]) @ matrix).reshape(*patches.shape[1:3], filters))
    return np.stack(results)


def convolve_depthwise(x: Floats, weights: Floats, stride: int) -> Floats:
    """(n, h, w, c) with (k, k, c, 1) -> (n, h / stride, w / stride, c), SAME padding."""
    kernel = weights.shape[0]
    windows = _windows(x, kernel, stride, Padding.SAME)
    result = np.zeros(windows.shape[:4], dtype=np.float32)
    for row in range(kernel):
        for column in range(kernel):
            result += windows[..., row, column] * weights[row, column, :, 0]
    return result


def _windows(x: Floats, kernel: int, stride: int, padding: Padding) -> Floats:
    """(n, h / stride, w / stride, c, kernel, kernel), a view of the zero-padded input."""
    rows = pad_widths(padding, x.shape[1], kernel, stride)
    columns = pad_widths(padding, x.shape[2], kernel, stride)
    padded = np.pad(x, ((0, 0), rows, columns, (0, 0)))
    view = sliding_window_view(padded, (kernel, kernel), axis=(1, 2))  # type: ignore[call-overload]
    return np.asarray(view[:, ::stride, ::stride])

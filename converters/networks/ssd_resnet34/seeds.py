"""SSD-ResNet34's weights from a fixed seed: a body like that of `networks.seeds`, and heads that detect.

Pictures of the model's own size would take numpy minutes. The network is fully convolutional, so cut-outs of
them do: the same detail, fewer positions.
"""

import numpy as np
from numpy.typing import NDArray

from converters.inputs import fixed_inputs
from converters.networks.architectures import Layer, Padding
from converters.networks.seeds import FIRST_CALIBRATION_IMAGE, Arrays, Floats, Seeder, convolve
from converters.networks.ssd_resnet34.boxes import SCORE_THRESHOLD
from converters.networks.ssd_resnet34.network import CLASSES, HEADS, features
from harness.models.recipes import COCO_1200

_SEED = 1
_CUT_OUTS = 12
_CUT_OUT_PX = 560
"""Leaves the last feature map four pixels."""

_LOCATION_STD = 0.7
"""Boxes are moved by some 7 % of their size, and stretched or squeezed by some 15 %."""

_DIRECTIONS = 16
_DRAWN = 1000
_ANCHOR_SHARE = 0.3
"""Of what is an anchor's own against what it shares with the others of its class."""

_HIT_SHARES = (0.005, 0.01, 0.04, 0.1, 0.2, 0.4)
"""Share of each feature map's boxes above the score threshold, before NMS."""

_CLEAR_SHARE = 0.3
"""Share of those with a score of 0.5 and more."""


def seed_ssd_resnet34() -> Arrays:
    """Weights for an input of (x / 255 - mean) / std; convolutions are (kh, kw, in, out)."""
    seeder = Seeder(np.random.default_rng(_SEED), branch_end=".conv2")
    maps = features(seeder, _cut_outs(seeder.rng))
    for x, (location, confidence), hit_share in zip(maps, HEADS, _HIT_SHARES, strict=True):
        _seed_location(seeder, x, location)
        _seed_confidence(seeder, x, confidence, hit_share)
    return seeder.arrays


def _cut_outs(rng: np.random.Generator) -> Floats:
    """(_CUT_OUTS, _CUT_OUT_PX, _CUT_OUT_PX, 3), each from another picture."""
    cut_outs = []
    for index in range(_CUT_OUTS):
        (picture,) = fixed_inputs(COCO_1200, 1, first=FIRST_CALIBRATION_IMAGE + index)
        top, left = rng.integers(0, COCO_1200.size_px[0] - _CUT_OUT_PX, 2)
        cut_outs.append(picture[:, top : top + _CUT_OUT_PX, left : left + _CUT_OUT_PX].transpose(1, 2, 0))
    return np.stack(cut_outs)


def _seed_location(seeder: Seeder, x: Floats, layer: Layer) -> None:
    seeder.convolve(x, layer)
    answers = _answers(seeder.rng, x, seeder.arrays[f"{layer.name}/weights"], layer)
    seeder.rescale(answers, layer, _LOCATION_STD, 0.0)


def _seed_confidence(seeder: Seeder, x: Floats, layer: Layer, hit_share: float) -> None:
    """Let each class look for corners of something; `hit_share` of the boxes are hits of any class."""
    weights = _filters(seeder.rng, x, layer)
    logits = _answers(seeder.rng, x, weights, layer)
    means = logits.mean(axis=(0, 1, 2))
    # Channels are class by class, each with all anchors.
    anchors = layer.filters // CLASSES
    best = (logits - means).reshape(-1, CLASSES, anchors)[:, 1:].max(axis=1)
    lowest, clear = np.quantile(best, (1 - hit_share, 1 - hit_share * _CLEAR_SHARE))
    scale = -_logit(SCORE_THRESHOLD) / (clear - lowest)
    weights[..., :anchors] = 0
    bias = -means * scale
    bias[:anchors] = clear * scale  # the background's logit depends on nothing
    seeder.arrays[f"{layer.name}/weights"] = weights * np.float32(scale)
    seeder.arrays[f"{layer.name}/bias"] = bias.astype(np.float32)


def _logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


def _answers(rng: np.random.Generator, x: Floats, weights: Floats, layer: Layer) -> Floats:
    """What a head answers inside of `x`: cut-outs have a larger share of border than pictures."""
    if x.shape[1] <= layer.kernel:
        # Too small to have an inside: draw one from what features there are.
        positions = x.reshape(-1, layer.inputs)
        x = positions[rng.integers(len(positions), size=(_DRAWN, layer.kernel, layer.kernel))]
    return convolve(x, weights, layer.stride, Padding.VALID)


def _filters(rng: np.random.Generator, x: Floats, layer: Layer) -> Floats:
    """(kernel, kernel, channels, filters): corners, in mixtures of the features' strongest directions."""
    anchors = layer.filters // CLASSES
    mixtures = _by_class(rng, anchors, min(_DIRECTIONS, x[..., 0].size // 4))
    weights = _directions(x, len(mixtures)) @ mixtures
    rows, columns = (_by_class(rng, anchors, layer.kernel) for _ in range(2))
    # Where nothing changes along the rows, or the columns, these kernels see nothing. Neighbouring boxes
    # would have equal scores there: rounding would say which of them wins, and so which are found at all.
    rows -= rows.mean(axis=0)
    columns -= columns.mean(axis=0)
    filters: Floats = ((rows[:, None] * columns)[:, :, None] * weights).astype(np.float32)
    return filters


def _by_class(rng: np.random.Generator, anchors: int, count: int) -> NDArray[np.float64]:
    """(count, 81 * anchors) random numbers, similar for a class's anchors: so NMS has something to do."""
    shared = np.repeat(rng.standard_normal((count, CLASSES)), anchors, axis=1)
    numbers: NDArray[np.float64] = shared + _ANCHOR_SHARE * rng.standard_normal(shared.shape)
    return numbers


def _directions(x: Floats, count: int) -> NDArray[np.float64]:
    """(channels, count): the strongest, equalised, of those that do not see zero padding beside the mean."""
    positions = x.reshape(-1, x.shape[3]).astype(np.float64)
    mean = positions.mean(axis=0)
    mean_direction = mean / np.linalg.norm(mean)
    centred = positions - mean
    centred -= np.outer(centred @ mean_direction, mean_direction)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(positions))
    strongest: NDArray[np.float64] = directions[:, -count:] / np.sqrt(variances[-count:])
    return strongest

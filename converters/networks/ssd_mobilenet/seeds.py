"""SSD-MobileNet-v1's weights from a fixed seed: a body like that of `networks.seeds`, and heads that detect.

Predictors with plain random weights find everything everywhere, or nothing. These look at the directions in
which the features of places and images differ, and are biased so that tens of their answers are clear and the
others are not: what is detected then depends on the image, and is the same in every framework.
"""

import numpy as np
from numpy.typing import NDArray

from converters.inputs import fixed_inputs
from converters.networks.architectures import ssd_mobilenet
from converters.networks.seeds import FIRST_CALIBRATION_IMAGE, Arrays, Floats, Seeder
from converters.networks.ssd_mobilenet.anchors import boxes_per_cell
from harness.models.recipes import COCO_300

CLASSES = 91
"""Background and COCO's category ids 1-90, ten of which are not used."""

_SEED = 1
_CALIBRATION_IMAGES = 48

_CLEAR_LOGIT = -0.85
"""A score of 0.3."""

_CLEAR_BOXES = (30, 22, 12, 7, 5, 4)
"""Answers above it in an image, on average and before NMS, from each feature map."""

_LOGIT_STD = 4.0
_ENCODING_STD = 1.5
"""Boxes shift by some 15 % of their anchor's size, and grow or shrink by some 30 %."""

_DIRECTIONS = 16
_BACKGROUND_BIAS = 3.0
"""Nothing may read the background's scores: an export that does finds it everywhere."""


def predictor(layer: int, kind: str) -> str:
    """Layer name of a predictor in the published file; `kind` is BoxEncodingPredictor or ClassPredictor."""
    return f"BoxPredictor_{layer}/{kind}"


def seed_ssd_mobilenet() -> Arrays:
    """SSD-MobileNet-v1 1.0 for an input of -1 to 1; predictors are (features, out) and (out,)."""
    seeder = Seeder(np.random.default_rng(_SEED))
    images = fixed_inputs(COCO_300, _CALIBRATION_IMAGES, first=FIRST_CALIBRATION_IMAGE)
    maps = ssd_mobilenet(seeder, images.astype(np.float32) * np.float32(2 / 255) - np.float32(1))
    for layer, (features, boxes) in enumerate(zip(maps, boxes_per_cell(), strict=True)):
        places = features.reshape(-1, features.shape[3]).astype(np.float64)
        weights, bias = _mixtures(seeder.rng, places, boxes * 4, _ENCODING_STD)
        _store(seeder, predictor(layer, "BoxEncodingPredictor"), weights, bias)
        weights, bias = _mixtures(seeder.rng, places, boxes * CLASSES, _LOGIT_STD)
        bias += _CLEAR_LOGIT - _highest(places @ weights + bias, boxes, _CLEAR_BOXES[layer])
        weights[:, ::CLASSES] = 0
        bias[::CLASSES] = _BACKGROUND_BIAS
        _store(seeder, predictor(layer, "ClassPredictor"), weights, bias)
    return seeder.arrays


def _mixtures(
    rng: np.random.Generator, places: NDArray[np.float64], count: int, std: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(features, count) and (count,): random mixtures of the features' strongest directions, equalised.

    Over `places`, (n, features), each has a mean of 0 and roughly the standard deviation `std`.
    """
    mean = places.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(places.T))
    strongest = slice(-min(_DIRECTIONS, len(places) - 1), None)
    mixtures = rng.standard_normal((len(variances[strongest]), count))
    mixtures *= std / np.linalg.norm(mixtures, axis=0)
    weights = (directions[:, strongest] / np.sqrt(variances[strongest])) @ mixtures
    return weights, -mean @ weights


def _highest(logits: NDArray[np.float64], boxes: int, per_image: int) -> float:
    """The logit that `per_image` answers of an image are above, background aside."""
    answers = logits.reshape(-1, boxes, CLASSES)[:, :, 1:].ravel()
    rank = per_image * _CALIBRATION_IMAGES
    return float(np.partition(answers, -rank)[-rank])


def _store(seeder: Seeder, name: str, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    parts: dict[str, Floats] = {
        f"{name}/weights": weights.astype(np.float32),
        f"{name}/bias": bias.astype(np.float32),
    }
    seeder.arrays.update(parts)

"""How far answers that were calculated in fewer bits than the file's may be from the source framework's.

bf16 rounds every factor to 8 significant bits, by up to 2^-9 of its value, and sums in fp32. The errors of
layers are independent: after 28 to 53 of them, in weights and activations, scores are off by about 1 % of
their own spread, times what the network amplifies; measured, 4 % with seeded weights, 7 % with real ones. So
two classes with nearly equal scores may change places, and comparing winners exactly would say nothing of the
server. With labels as the truth nothing is loosened: MLPerf's targets hold for bf16 too.

Figures below: OpenVINO 2026.4 in bf16 against fp32 on an EPYC with AVX512_BF16, over 512 samples of mobilenet
and resnet50 with seeded weights, 200 photographs with mobilenet's real ones (188 right in both precisions),
48 samples of seeded ssd-mobilenet, 80 photographs with real weights, 4 samples of seeded ssd-resnet34.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.models.spec import TensorSpec, Variant

FULL = "fp32"
FP16 = "fp16"
REDUCED = ("bf16", FP16)
"""Chosen by the framework, or fp16 by the file; int8 is what a quantised file asks for."""
UNKNOWN = "unknown"
"""The server does not say, as NVIDIA's native OpenVINO backend: it may be any."""

MARGIN = 0.5
"""How far below the source's best score the source's own score of the served class may be, as a share of the
standard deviation of that sample's scores. At most 0.14 was seen with seeded weights, where one winner in ten
changed, and 0.005 with real ones (one in 200). The class of another sample, or of another model, is 3."""

GOLDEN_SHARE = 0.5
"""Of stored inputs whose classes come without scores, those that must be the same: see above for bf16; with
other weights, one in a thousand is."""

BOX_TOLERANCE = 0.1
"""How far twins of the stored detections may be apart, in score and in every corner."""

GOLDEN_BOXES = 0.5
"""Share of the stored detections that must have a twin. 0.92 had one with seeded weights (0.75 in the worst
image), 0.97 with real ones; of another image's, 0.03."""

BOX_AGREEMENT = 0.75
"""Smallest mAP with the source's own boxes as the truth: it was 0.88 for both detectors with seeded weights,
whose scores are alike, 0.94 with real ones, and 0.01 with another image's boxes."""


GPU_SHARE = 1e-2
"""How far the stored scores and a server's may be apart, for `allowed_difference`; generous, since a GPU may
compute in TF32."""

QUANTUM = 1.0
"""How far apart two runtimes' scores of a quantised network may be: they are rounded, and may be on either
side of a half."""

_ROUNDINGS = 8
"""By as many units in the last place of the largest score may one graph's sums differ in another order."""


def allowed_difference(scores: npt.NDArray[Any], share: float, *, is_half: bool = False) -> float:
    """How far apart two runtimes' floating-point scores may be: relative to themselves, whatever their unit.

    Args:
        scores: of several samples.
        share: of their spread, largest less smallest, that the arithmetic may be off by.
        is_half: whether numbers are rounded to fp16.
    """
    rounding = float(np.finfo(np.float16 if is_half else np.float32).eps)
    values = scores.astype(np.float64)
    # A class that cannot win may have a score of minus infinity, which has no spread.
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0
    return share * float(np.ptp(finite)) + _ROUNDINGS * rounding * float(np.abs(finite).max())


def largest_difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """How far apart two arrays of one shape are, at most.

    Equal infinities are not apart; NaN is from anything, itself included, and makes the difference NaN.
    """
    first, second = one.astype(np.float64), other.astype(np.float64)
    apart = np.zeros_like(first)
    np.subtract(first, second, out=apart, where=first != second)
    return float(np.abs(apart).max())


def is_full(precision: str | None) -> bool:
    """Whether answers are as exact as the file's arithmetic (None: of a platform that has no choice)."""
    return precision in (None, FULL)


def scores_of(variant: Variant) -> TensorSpec | None:
    """A classifier's output with a number for each class; None where it only names the winner."""
    if variant.detection:
        return None
    return next((output for output in variant.outputs if output.is_scores), None)


def is_near_best(scores: npt.NDArray[Any], margin: float = MARGIN) -> npt.NDArray[np.bool_]:
    """Which classes may win where errors are those of fewer bits.

    Args:
        scores: (n, classes), of the source framework; probabilities, or what they are made from.
        margin: see `MARGIN`.

    Returns:
        (n, classes)
    """
    return shortfall(scores) <= margin


def shortfall(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How far each class is below the sample's best one, in standard deviations of the sample's scores.

    Args:
        scores: as `is_near_best` has them.

    Returns:
        (n, classes)
    """
    values = scores.astype(np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    deficit = values.max(axis=1, keepdims=True) - values
    spread = values.std(axis=1, keepdims=True, where=np.isfinite(values))
    # Where all score alike, any may win but those that cannot.
    alike = np.where(np.isfinite(deficit), 0.0, deficit)
    return np.asarray(np.divide(deficit, spread, out=alike, where=spread > 0))

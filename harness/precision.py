"""How far answers that were calculated in fewer bits than the file's may be from the source framework's.

bf16 rounds every factor to 8 significant bits, each time by up to 2^-9 of its value; sums are kept in fp32. The
errors of a network's layers are independent, so that after 28 to 53 of them, weights and activations each,
scores are off by about 1 % of their own spread, times what the network amplifies. So two classes with nearly
equal scores may change places, and an exact comparison of the winners says nothing of the server.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.models.spec import TensorSpec, Variant

FULL = "fp32"
UNKNOWN = "unknown"
"""The server does not say, as NVIDIA's native OpenVINO backend: it may be any."""

MARGIN = 0.5
"""How far below the source's best score the source's own score of the served class may be, as a share of the
standard deviation of that sample's scores. Measured in bf16: errors of 0.04 (root mean square), and 0.14 below
the best score at most, in 512 samples of mobilenet and resnet50 with seeded weights, of which one in ten got
another winner. The class of another sample, or of another model, is 3 below."""

GOLDEN_SHARE = 0.5
"""Of stored inputs whose classes come without scores, those that must be the same. One in ten is not, above;
with other weights, one in a thousand is."""


def is_full(precision: str | None) -> bool:
    """Whether answers are as exact as the file's arithmetic (None: of a platform that has no choice)."""
    return precision in (None, FULL)


def scores_of(variant: Variant) -> TensorSpec | None:
    """A classifier's output with a number for each class; None where it only names the winner."""
    if variant.detection:
        return None
    found = [output for output in variant.outputs if len(output.shape) == 1 and output.shape[0] > 1]
    return found[0] if found else None


def is_near_best(scores: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which classes may win where errors are those of fewer bits.

    Args:
        scores: (n, classes), of the source framework; probabilities, or what they are made from.

    Returns:
        (n, classes)
    """
    values = scores.astype(np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    deficit = values.max(axis=1, keepdims=True) - values
    return np.asarray(deficit <= MARGIN * values.std(axis=1, keepdims=True))


BOX_DISAGREEMENT = 0.1

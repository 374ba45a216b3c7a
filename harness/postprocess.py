"""Server outputs to the payload that LoadGen logs, laid out as MLPerf's accuracy scripts read it.

Classification: one float32 per sample, the predicted ImageNet label 0-999 (accuracy-imagenet.py, float32).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from harness.errors import InferenceError
from harness.models.spec import Variant

Payload = npt.NDArray[np.float32]
Decoder = Callable[[Sequence[npt.NDArray[np.generic]], Payload], None]
"""Writes the payload of each sample of a response into the leading rows of an (m, k) array.

Raises InferenceError for values that no model can mean.
"""

PAYLOAD_FLOATS = 1


def decoder(variant: Variant) -> Decoder:
    """Choose how a variant's answers become labels: its graph may or may not end in an arg-max."""
    offset = variant.label_offset
    if not variant.requested_outputs[0].shape:

        def from_class(tensors: Sequence[npt.NDArray[np.generic]], payload: Payload) -> None:
            classes = tensors[0]
            payload[: len(classes)] = classes
            payload[: len(classes)] += offset

        return from_class

    def from_scores(tensors: Sequence[npt.NDArray[np.generic]], payload: Payload) -> None:
        scores = tensors[0]
        winners = scores.argmax(axis=1, keepdims=True)
        # arg-max picks a NaN where there is one, so the winner's score tells.
        if not np.isfinite(np.take_along_axis(scores, winners, axis=1)).all():
            raise InferenceError("the model answered with NaN or infinite scores")
        payload[: len(scores)] = winners + offset

    return from_scores

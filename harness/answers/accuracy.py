"""Scores a finished accuracy test from LoadGen's own log."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.errors import InferenceError


@dataclass(frozen=True)
class Accuracy:
    """A score, and what it was measured against."""

    metric: str
    truth: str
    """`data set` (its labels) or `source framework` (its own predictions on the same samples)."""
    value: float
    """0 to 1."""
    total: int
    """Samples."""
    threshold: float | None
    """Smallest value that passes; None where nothing is prescribed (a user's own file or data)."""
    good: int | None = None
    """Classifiers: samples that are right."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Detectors: COCO's twelve figures by name; -1 where no object is of that kind."""
    truth_file: str = ""
    """Detectors, where the source framework is the truth: its boxes as an annotation file, which MLCommons'
    accuracy-coco.py reads too."""
    detections: int | None = None
    """Detectors: how many were logged."""
    good_detections: int | None = None
    """Detectors: how many of those are of a class that is annotated in their image, wherever their box is."""

    @property
    def is_met(self) -> bool:
        """Whether the threshold is reached, where there is one."""
        return self.threshold is None or self.value >= self.threshold


def score_classification(
    payloads: Mapping[int, bytes],
    labels: Sequence[int],
    near_labels: Sequence[Collection[int]] = (),
    *,
    metric: str,
    truth: str,
    threshold: float | None,
) -> Accuracy:
    """Compare the logged labels with the true ones.

    Args:
        payloads: logged bytes by sample index: one float32 label each.
        labels: true label by sample index, for the whole data set.
        near_labels: by sample index, the labels that count as right beside the true one; empty for none.
        metric: name of the score.
        truth: where the labels are from.
        threshold: smallest share that passes, if any.

    Raises:
        InferenceError: samples are missing from the log, or a payload is not one float32.
    """
    missing = [index for index in range(len(labels)) if not payloads.get(index)]
    if missing:
        raise InferenceError(
            f"the accuracy log has no answer for {len(missing)} of {len(labels)} samples, first {missing[0]}"
        )
    sizes = {len(payload) for payload in payloads.values()}
    if sizes != {4}:
        raise InferenceError(f"the accuracy log has payloads of {sorted(sizes)} bytes, expected 4")
    answered = np.frombuffer(b"".join(payloads[index] for index in range(len(labels))), "<f4")
    is_right = answered.astype(np.int64) == np.asarray(labels, np.int64)
    if near_labels:
        is_right |= [int(label) in near for label, near in zip(answered, near_labels, strict=True)]
    good = int(is_right.sum())
    return Accuracy(metric, truth, good / len(labels), len(labels), threshold, good=good)

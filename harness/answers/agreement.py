"""How far two sets of detections of the same images agree, whatever their order.

Detectors in two frameworks never answer alike to the last bit: a rounding error reorders equal scores, and
one pair in thousands overlaps so nearly as much as NMS allows that only one of the two keeps both. So boxes
are matched, and what counts is the share that has a twin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.answers.payloads import (
    SIGNIFICANT_SCORE,
    Payload,
)

MIN_AGREEMENT = 0.99
"""Smallest share of detections with a twin between a model and its export; the rest is chance, as above."""


@dataclass(frozen=True)
class Agreement:
    """Of two sets of detections."""

    detections: int
    """Significant ones of both sets."""
    matched: int
    """Those with a twin: the same image and class, and score and corners within the tolerance."""
    largest_difference: float
    """Of scores (0-1) and corners (shares of the image) between twins."""

    @property
    def share(self) -> float:
        """Share of the detections that have a twin; 1.0 where there are none at all."""
        return self.matched / self.detections if self.detections else 1.0


def compare(expected: Sequence[Payload], found: Sequence[Payload], tolerance: float) -> Agreement:
    """Match two sets of detections, image by image.

    Args:
        expected: (n, 7) records of each image.
        found: of the same images, in the same order.
        tolerance: how far twins may be apart, in score and in every corner.
    """
    detections = matched = 0
    largest = 0.0
    for left, right in zip(expected, found, strict=True):
        for records, others in ((left, right), (right, left)):
            significant = records[records[:, 5] >= SIGNIFICANT_SCORE]
            differences = _twins(significant, others, tolerance)
            detections += len(significant)
            matched += len(differences)
            largest = max([largest, *differences])
    return Agreement(detections, matched, largest)


def _twins(records: Payload, others: Payload, tolerance: float) -> list[float]:
    """The difference of each record, strongest first, from the nearest of the others that is still free."""
    if not len(others):
        return []
    distance = np.abs(records[:, None, 1:6].astype(np.float64) - others[None, :, 1:6]).max(axis=2)
    distance[records[:, None, 6] != others[None, :, 6]] = np.inf
    differences = []
    for row in np.argsort(-records[:, 5], kind="stable"):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] <= tolerance:
            differences.append(float(distance[row, nearest]))
            distance[:, nearest] = np.inf
    return differences

"""Server outputs to the payload that LoadGen logs, laid out as MLPerf's accuracy scripts read it.

Classification: one float32 per sample, the predicted ImageNet label 0-999 (accuracy-imagenet.py, float32).
Detection: any number of records of 7 float32: sample index, ymin, xmin, ymax, xmax as shares of the image,
score, class (accuracy-coco.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.answers import box_forms
from harness.errors import InferenceError
from harness.models.spec import Detection, Variant

Payload = npt.NDArray[np.float32]
Tensors = Sequence[npt.NDArray[Any]]
"""A response's tensors in the order of the requested outputs, batch axis first."""

Decoder = Callable[[Tensors, Sequence[int], Payload], Sequence[int]]
"""(tensors, sample indices, payload) -> bytes of each sample's payload.

Writes the payload of each sample of a response to the start of its row of `payload`, (m, payload_floats).
Raises InferenceError for values that no model can mean.
"""

RECORD_FLOATS = 7
_LABEL_BYTES = 4
RECORD_BYTES = 4 * RECORD_FLOATS
_MAX_DETECTIONS = 1000
"""Per image, of models that say nothing of it; ten times what COCO's evaluation looks at."""
SIGNIFICANT_SCORE = 0.05
"""Detections below are not compared: which of the many near zero get the last slots is chance.
The score below which the MLPerf reference's ssd-resnet34 drops them."""
MAX_PER_CLASS = 100
"""Detections of one class in one image that COCO's evaluation looks at (`maxDets` of pycocotools)."""
_LEAST_SCORE = np.finfo(np.float32).tiny
"""Slots without a detection have a score of 0."""


def payload_floats(variant: Variant) -> int:
    """Most float32 in the payload of one sample."""
    if variant.detection is None:
        return 1
    return RECORD_FLOATS * _slots(variant, variant.detection)


def decoder(variant: Variant) -> Decoder:
    """Choose how a variant's answers become payloads."""
    if variant.detection:
        return _detector(variant, variant.detection)
    offset = variant.label_offset
    if not variant.requested_outputs[0].is_scores:

        def from_class(tensors: Tensors, indices: Sequence[int], payload: Payload) -> Sequence[int]:
            classes = tensors[0].reshape(len(tensors[0]), 1)
            payload[: len(classes)] = classes
            payload[: len(classes)] += offset
            return [_LABEL_BYTES] * len(indices)

        return from_class

    def from_scores(tensors: Tensors, indices: Sequence[int], payload: Payload) -> Sequence[int]:
        scores = tensors[0].reshape(len(tensors[0]), -1)
        winners = scores.argmax(axis=1, keepdims=True)
        # arg-max picks a NaN where there is one, so the winner's score tells.
        if not np.isfinite(np.take_along_axis(scores, winners, axis=1)).all():
            raise InferenceError("the model answered with NaN or infinite scores")
        payload[: len(scores)] = winners + offset
        return [_LABEL_BYTES] * len(indices)

    return from_scores


def _detector(variant: Variant, detection: Detection) -> Decoder:
    names = [output.name for output in variant.requested_outputs]
    boxes_at, scores_at, classes_at = (
        names.index(name) for name in (detection.boxes, detection.scores, detection.classes)
    )
    count_at = names.index(detection.count) if detection.count else None
    corners = box_forms.reader(detection, variant.preprocess.size_px)
    threshold = max(detection.score_threshold, _LEAST_SCORE)
    slots = _slots(variant, detection)

    def decode(tensors: Tensors, indices: Sequence[int], payload: Payload) -> Sequence[int]:
        scores = tensors[scores_at]
        count, found = scores.shape
        if found > slots:
            raise InferenceError(f"the model answered with {found} detections of one image; most are {slots}")
        records = np.empty((count, found, RECORD_FLOATS), np.float32)
        records[:, :, 0] = np.reshape(indices, (count, 1))
        records[:, :, 1:5] = corners(tensors[boxes_at])
        records[:, :, 5] = scores
        records[:, :, 6] = tensors[classes_at]
        records[:, :, 6] += detection.class_offset
        is_kept = scores >= threshold
        # What fills slots up that hold no detection is of no account; a score that is no number is.
        is_finite = np.isfinite(records).all(axis=2) | (scores < threshold)
        if count_at is not None:
            counts = tensors[count_at].reshape(count, 1)
            is_counted = np.arange(found) < counts
            # LiteRT leaves in the slots beyond the count whatever was there.
            is_finite |= ~is_counted & np.isfinite(counts)
            is_kept &= is_counted
        # Any comparison with NaN is false: such detections would vanish without a word.
        if not is_finite.all():
            raise InferenceError("the model answered with NaN or infinite scores, boxes or classes")
        sizes = []
        for row in range(count):
            kept = records[row, is_kept[row]]
            payload[row, : kept.size] = kept.ravel()
            sizes.append(len(kept) * RECORD_BYTES)
        return sizes

    return decode


def _slots(variant: Variant, detection: Detection) -> int:
    (boxes,) = (output for output in variant.outputs if output.name == detection.boxes)
    return _MAX_DETECTIONS if boxes.shape[0] < 0 else boxes.shape[0]


def records_of(payload: bytes) -> Payload:
    """A payload as (n, 7) records: sample index, ymin, xmin, ymax, xmax, score, class."""
    return np.frombuffer(payload, "<f4").reshape(-1, RECORD_FLOATS)


def decode(variant: Variant, tensors: Tensors, indices: Sequence[int]) -> list[Payload]:
    """What a detector's answer to these samples would log: the (n, 7) records of each."""
    payload = np.empty((len(indices), payload_floats(variant)), np.float32)
    sizes = decoder(variant)(tensors, indices, payload)
    return [
        records_of(row[: size // row.itemsize].tobytes()) for row, size in zip(payload, sizes, strict=True)
    ]


def split(records: Payload, count: int) -> list[Payload]:
    """Records of many samples, (n, 7), as one array for each sample index below `count`."""
    return [records[records[:, 0] == index] for index in range(count)]


def strongest(records: Payload) -> Payload:
    """The significant detections of one image, at most `MAX_PER_CLASS` of each class, strongest first."""
    ordered = records[np.argsort(-records[:, 5], kind="stable")]
    ordered = ordered[ordered[:, 5] >= SIGNIFICANT_SCORE]
    rank = np.zeros(len(ordered), np.int64)
    for category in np.unique(ordered[:, 6]):
        is_of_class = ordered[:, 6] == category
        rank[is_of_class] = np.arange(is_of_class.sum())
    return ordered[rank < MAX_PER_CLASS]

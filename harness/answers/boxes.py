"""Logged detections, checked, as boxes in pixels: what scoring, pictures and derived truth are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.answers.payloads import RECORD_BYTES, RECORD_FLOATS
from harness.data.annotations import Annotations
from harness.errors import InferenceError

MIN_SCORE = 0.3
"""Pictures: weaker boxes are not drawn."""
MOST_BOXES = 20
"""Per picture, those with the highest scores."""
IN_EVERY_REPORT = 4
"""Pictures of a run that did not ask for any."""

_MAX_CLASS = 1 << 24
"""Above, float32 does not hold every whole number."""


@dataclass(frozen=True)
class Boxes:
    """Detections of many images: in the images' order, those of an image in the log's."""

    sample_indices: npt.NDArray[np.int64]
    """(n,)"""
    xywh_px: npt.NDArray[np.float64]
    """(n, 4): left, top, width, height, as COCO's annotations have them."""
    scores: npt.NDArray[np.float64]
    """(n,)"""
    category_ids: npt.NDArray[np.int64]
    """(n,) COCO ids; those that the annotation file lacks are kept."""


def collect(
    payloads: Mapping[int, bytes],
    sizes_px: Sequence[tuple[int, int]],
    category_ids: Sequence[int],
    *,
    is_contiguous: bool,
) -> Boxes:
    """Read the payloads of the samples 0 to n - 1.

    Args:
        payloads: logged bytes by sample index: records of 7 float32 (see
            `harness.answers.payloads`). Those of further samples are left alone.
        sizes_px: (height, width) of each sample's image.
        category_ids: COCO ids in the annotation file's order.
        is_contiguous: whether class k means the k-th of `category_ids`, instead of a COCO id.

    Raises:
        InferenceError: samples are missing, or a payload is not a list of such records.
    """
    records = _join(payloads, len(sizes_px))
    heights, widths = np.asarray(sizes_px, np.float64).reshape(-1, 2)[records[:, 0].astype(np.int64)].T
    top, left, bottom, right = records[:, 1:5].T
    return Boxes(
        sample_indices=records[:, 0].astype(np.int64),
        xywh_px=np.stack(
            [left * widths, top * heights, (right - left) * widths, (bottom - top) * heights], axis=1
        ),
        scores=records[:, 5],
        category_ids=_categories(records, category_ids, is_contiguous),
    )


def _join(payloads: Mapping[int, bytes], count: int) -> npt.NDArray[np.float64]:
    """All records, (n, 7), after checking that each is whole, finite and its own sample's."""
    missing = [index for index in range(count) if payloads.get(index) is None]
    if missing:
        raise InferenceError(
            f"the accuracy log has no answer for {len(missing)} of {count} samples, first {missing[0]}"
        )
    for index in range(count):
        if len(payloads[index]) % RECORD_BYTES:
            raise InferenceError(
                f"the payload of sample {index} has {len(payloads[index])} bytes: detections are records of "
                f"{RECORD_BYTES}"
            )
    joined = b"".join(payloads[index] for index in range(count))
    records = np.frombuffer(joined, "<f4").reshape(-1, RECORD_FLOATS).astype(np.float64)
    owners = np.repeat(np.arange(count), [len(payloads[index]) // RECORD_BYTES for index in range(count)])
    is_finite = np.isfinite(records).all(axis=1)
    if not is_finite.all():
        raise InferenceError(
            f"the payload of sample {owners[is_finite.argmin()]} has a detection with NaN or infinite numbers"
        )
    is_own = records[:, 0] == owners
    if not is_own.all():
        first = is_own.argmin()
        raise InferenceError(
            f"the payload of sample {owners[first]} has a detection of sample {records[first, 0]:g}"
        )
    return records


def _categories(
    records: npt.NDArray[np.float64], category_ids: Sequence[int], is_contiguous: bool
) -> npt.NDArray[np.int64]:
    classes = records[:, 6]
    lowest, highest = (1, len(category_ids)) if is_contiguous else (0, _MAX_CLASS)
    is_class = (classes == np.floor(classes)) & (lowest <= classes) & (classes <= highest)
    if not is_class.all():
        first = is_class.argmin()
        wanted = f"a whole number from {lowest} to {highest}" if is_contiguous else "a category id"
        raise InferenceError(
            f"the payload of sample {records[first, 0]:g} has class {classes[first]:g}, which is not "
            f"{wanted}; --classes says what the class numbers of a detector of your own mean"
        )
    whole = classes.astype(np.int64)
    return np.asarray(category_ids, np.int64)[whole - 1] if is_contiguous else whole


def with_detections_as_truth(
    annotations: Annotations, payloads: Mapping[int, bytes], is_contiguous: bool
) -> Annotations:
    """The same images with what a detector found in them as the true objects, and their scores; ids from 1.

    Detections of a category that the annotations lack are left out, which the evaluation does not look at,
    and those without an area, which it never finds again.

    Args:
        annotations: images and categories.
        payloads: detections by sample index (see `collect`).
        is_contiguous: whether class k means the k-th category, instead of a COCO id.

    Raises:
        InferenceError: samples are missing, or a payload is not a list of detections.
    """
    found = collect(payloads, annotations.sizes_px, annotations.category_ids, is_contiguous=is_contiguous)
    known = set(annotations.category_ids)
    objects = [
        {"image_id": annotations.images[index].id, "category_id": category, "bbox": box, "score": score}
        for index, category, box, score in zip(
            *(found.sample_indices.tolist(), found.category_ids.tolist()),
            *(found.xywh_px.tolist(), found.scores.tolist()),
            strict=True,
        )
        if category in known and box[2] * box[3] > 0
    ]
    return replace(
        annotations,
        annotations=tuple(
            {"id": number, **entry, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
            for number, entry in enumerate(objects, 1)
        ),
    )

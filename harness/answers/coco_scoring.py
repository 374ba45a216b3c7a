"""COCO's twelve figures for logged detections, by pycocotools; the only module that imports it."""

import contextlib
import io
import logging
from collections.abc import Mapping
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from harness.answers import boxes
from harness.answers.accuracy import Accuracy
from harness.answers.boxes import Boxes
from harness.answers.payloads import RECORD_BYTES
from harness.data.annotations import Annotations
from harness.errors import InferenceError
from harness.machine import progress

logger = logging.getLogger(__name__)

# In the order of pycocotools' `stats`. mAP is over IoU 0.5 to 0.95; AR is recall with so many detections.
_FIGURES = (
    "mAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def score(
    payloads: Mapping[int, bytes], annotations: Annotations, *, is_contiguous: bool
) -> dict[str, float]:
    """Evaluate the boxes that were found in exactly the images of `annotations`, whether any were or not.

    Args:
        payloads: logged bytes by sample index (see `boxes.collect`); those of further samples do not count.
        annotations: true objects; image i is sample i.
        is_contiguous: whether class k means the k-th category, instead of a COCO id.

    Returns:
        mAP, AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100, AR_small, AR_medium, AR_large,
        each from 0 to 1, or -1 where there is no true object of that kind.

    Raises:
        InferenceError: samples are missing from the log, or a payload is not a list of detections.
    """
    with progress.waiting("scoring"), _silence():
        evaluation = _evaluation(payloads, annotations, is_contiguous)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(_FIGURES, evaluation.stats.tolist(), strict=True))


def mean_precision(payloads: Mapping[int, bytes], annotations: Annotations, *, is_contiguous: bool) -> float:
    """The mAP of `score` alone, in a quarter of the time; arguments and errors are the same."""
    with _silence():
        evaluation = _evaluation(payloads, annotations, is_contiguous)
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def _silence() -> contextlib.redirect_stdout[io.StringIO]:
    """It prints a table, and where it is at; stdout is for the result."""
    return contextlib.redirect_stdout(io.StringIO())


def _evaluation(payloads: Mapping[int, bytes], annotations: Annotations, is_contiguous: bool) -> COCOeval:
    found = boxes.collect(
        payloads, annotations.sizes_px, annotations.category_ids, is_contiguous=is_contiguous
    )
    # Copies: the evaluation adds fields of its own.
    truth = _indexed(annotations, [dict(entry) for entry in annotations.annotations])
    return COCOeval(truth, _indexed(annotations, _detections(found, annotations)), "bbox")


def _indexed(annotations: Annotations, entries: list[dict[str, Any]]) -> COCO:
    """A COCO object of these entries. Its own `loadRes` cannot take an empty list, and copies the rest."""
    coco = COCO()
    coco.dataset = {
        "images": [vars(image) for image in annotations.images],
        "annotations": entries,
        "categories": [{"id": category} for category in annotations.category_ids],
    }
    coco.createIndex()
    return coco


def _detections(found: Boxes, annotations: Annotations) -> list[dict[str, Any]]:
    """What `loadRes` makes of a results file, without the outlines; ids from 1, since 0 means no match."""
    image_ids = [image.id for image in annotations.images]
    columns = (found.sample_indices, found.category_ids, found.xywh_px, found.scores)
    return [
        {
            "id": number,
            "image_id": image_ids[index],
            "category_id": category,
            "bbox": box,
            "score": score,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (index, category, box, score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]


def score_detection(
    payloads: Mapping[int, bytes],
    annotations: Annotations,
    *,
    is_contiguous: bool,
    metric: str,
    truth: str,
    threshold: float | None,
) -> Accuracy:
    """Compute COCO's mean average precision of the logged detections.

    Args:
        payloads: logged bytes by sample index: records of 7 float32 (see `harness.answers.payloads`).
        annotations: true objects; its images are the data set's, in order.
        is_contiguous: whether class k means the k-th category, instead of a COCO id.
        metric: name of the score.
        truth: where the annotations are from.
        threshold: smallest value that passes, if any.

    Raises:
        InferenceError: samples are missing from the log, a payload is not a list of such records, or there
            is not one true object to find.
    """
    if all(entry["iscrowd"] for entry in annotations.annotations):
        raise InferenceError(
            f"nothing can be scored: the {truth} has no object in any of {len(annotations.images)} images"
        )
    images = len(annotations.images)
    detections = sum(len(payloads.get(index, b"")) for index in range(images)) // RECORD_BYTES
    logger.info("scoring %d detections in %d images", detections, images)
    figures = score(payloads, annotations, is_contiguous=is_contiguous)
    return Accuracy(
        *(metric, truth, figures["mAP"], images, threshold),
        figures=figures,
        detections=detections,
        good_detections=_of_a_class_there(payloads, annotations, is_contiguous),
    )


def _of_a_class_there(payloads: Mapping[int, bytes], annotations: Annotations, is_contiguous: bool) -> int:
    """The reference's `good_items` (its python/coco.py): detections of a class that their image has."""
    found = boxes.collect(
        payloads, annotations.sizes_px, annotations.category_ids, is_contiguous=is_contiguous
    )
    there = {(entry["image_id"], entry["category_id"]) for entry in annotations.annotations}
    image_ids = [annotations.images[index].id for index in found.sample_indices]
    return sum(pair in there for pair in zip(image_ids, found.category_ids.tolist(), strict=True))

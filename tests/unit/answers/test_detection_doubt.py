"""A detector that finds every object, asked for in every form, and read in the way that was not meant."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from harness.answers import detection_doubt
from harness.answers.box_forms import as_answered
from harness.answers.coco_scoring import mean_precision
from harness.answers.payloads import decode
from harness.data.annotations import COCO_CATEGORIES, Annotations, CocoImage
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.spec import Numbering

IDS, NAMES = zip(*COCO_CATEGORIES, strict=True)
OF_COCO = MODELS["ssd-mobilenet"].variants[Platform.ONNXRUNTIME]
CONTIGUOUS = MODELS["ssd-resnet34"].variants[Platform.ONNXRUNTIME]
PLACES = [(0.1, 0.2, 0.5, 0.4), (0.3, 0.55, 0.45, 0.95), (0.6, 0.1, 0.9, 0.3)]
"""ymin, xmin, ymax, xmax of the objects in every image."""


@pytest.fixture(scope="module")
def truth():
    return truth_of(PLACES)


def truth_of(places):
    """Images of 200x100 pixels; between them, they show an object of every category."""
    images = tuple(CocoImage(number, f"{number}.jpg", 100, 200) for number in range(1, 28))
    objects = []
    for image in images:
        for at, (top, left, bottom, right) in enumerate(places):
            box = [left * 200, top * 100, (right - left) * 200, (bottom - top) * 100]
            objects.append(
                {
                    "id": len(objects) + 1, "image_id": image.id, "bbox": box, "area": box[2] * box[3],
                    "category_id": IDS[(3 * image.id + at) % 80], "iscrowd": 0,
                }
            )  # fmt: skip
    return Annotations(images, tuple(objects), IDS, NAMES)


def answered(truth, variant, meant):
    """Payloads of a network that answers as `meant` says, read as `variant` does."""
    height, width = variant.preprocess.size_px
    classes_of = {
        Numbering.COCO: list(IDS),
        Numbering.COCO_LESS_1: [number - 1 for number in IDS],
        Numbering.FROM_1: list(range(1, 81)),
        Numbering.FROM_0: list(range(80)),
    }[meant.numbering]
    payloads = {}
    for index, image in enumerate(truth.images):
        boxes = as_answered(np.array([PLACES], np.float32), meant, (height, width))
        shown = [entry["category_id"] for entry in truth.annotations if entry["image_id"] == image.id]
        tensors = {
            meant.boxes: boxes,
            meant.scores: np.full((1, len(PLACES)), 0.9, np.float32),
            meant.classes: np.array([[classes_of[IDS.index(each)] for each in shown]], np.float32),
            meant.count: np.array([[len(PLACES)]], np.float32),
        }
        (records,) = decode(variant, [tensors[output.name] for output in variant.requested_outputs], [index])
        payloads[index] = records.tobytes()
    return payloads


def doubts(truth, variant, meant, *, is_own_file=True):
    payloads = answered(truth, variant, meant)
    value = mean_precision(payloads, truth, is_contiguous=variant.detection.is_contiguous)
    return value, detection_doubt.of_detections(payloads, truth, variant, value, is_own_file=is_own_file)


def reading(variant, numbering, form):
    return replace(variant, detection=variant.detection.numbered(numbering).boxed(form))


@pytest.mark.parametrize("numbering", Numbering)
def test_a_detector_that_is_read_as_meant_is_not_doubted(truth, numbering):
    variant = reading(OF_COCO, numbering, "xywh,pixels")
    assert doubts(truth, variant, variant.detection) == (1.0, ())


@pytest.mark.parametrize(
    ("numbering", "form", "options"),
    [
        # The first eleven categories are the same in both; here 80 have an object each, about.
        ("0-79", "yxyx", "--classes 0-79"),
        ("coco-1", "yxyx", "--classes coco-1"),
        ("1-80", "yxyx", "--classes 1-80"),
        ("coco", "xyxy", "--boxes xyxy"),
        ("coco", "xywh", "--boxes xywh"),
        ("coco", "cxcywh,pixels", "--boxes cxcywh,pixels"),
        ("0-79", "xyxy,pixels", "--classes 0-79 --boxes xyxy,pixels"),
    ],
)
def test_a_detector_that_is_misread_is_told_of_with_the_options_that_mend_it(truth, numbering, form, options):
    meant = OF_COCO.detection.numbered(Numbering(numbering)).boxed(form)
    value, (*_, found) = doubts(truth, OF_COCO, meant)
    assert value < 0.15
    assert "would be 100.00% instead of" in found
    assert found.endswith(f"with {options}")
    # And with these options:
    assert doubts(truth, reading(OF_COCO, meant.numbering, form), meant) == (1.0, ())


def test_a_detector_of_ones_own_that_is_half_right_is_doubted_too(monkeypatch):
    # Where a box is the same in both forms, the wrong one finds it.
    places = [(0.1, 0.1, 0.4, 0.4), (0.3, 0.55, 0.45, 0.95), (0.6, 0.6, 0.9, 0.9)]
    monkeypatch.setattr(sys.modules[__name__], "PLACES", places)
    value, (found,) = doubts(truth_of(places), OF_COCO, OF_COCO.detection.boxed("xyxy"))
    assert 0.5 < value < 0.8
    assert found.endswith("with --boxes xyxy")
    assert doubts(truth_of(places), OF_COCO, OF_COCO.detection.boxed("xyxy"), is_own_file=False)[1] == ()


def test_places_and_sizes_near_the_top_left_are_almost_corners_and_yet_told(monkeypatch):
    places = [(0.02, 0.02, 0.5, 0.4), (0.02, 0.03, 0.45, 0.95), (0.03, 0.02, 0.9, 0.5)]
    monkeypatch.setattr(sys.modules[__name__], "PLACES", places)
    variant = reading(OF_COCO, Numbering.COCO, "xyxy")
    value, (found,) = doubts(truth_of(places), variant, OF_COCO.detection.boxed("xywh"))
    assert 0.8 < value < 0.95
    assert found.endswith("with --boxes xywh")


def test_from_0_read_as_from_1_moves_every_class(truth):
    meant = CONTIGUOUS.detection.numbered(Numbering.COCO_LESS_1)
    variant = reading(CONTIGUOUS, Numbering.COCO, "xyxy")
    value, (lacks, better) = doubts(truth, variant, meant)
    assert value < 0.05
    assert "annotation file lacks (0, 12, 26, 30, 45 …)" in lacks
    assert better.endswith("--classes coco-1")


def test_of_equal_readings_all_are_named(truth):
    # The first eleven numbers mean the same category, by id and by place.
    few = replace(truth, images=truth.images[:2], annotations=truth.annotations[:6])
    meant = OF_COCO.detection.numbered(Numbering.FROM_0)
    _, (*_, found) = doubts(few, OF_COCO, meant)
    assert found.endswith("with --classes coco-1 or --classes 0-79")


def test_of_a_named_model_the_data_set_is_to_blame(truth):
    meant = OF_COCO.detection.boxed("xyxy")
    _, (found,) = doubts(truth, OF_COCO, meant, is_own_file=False)
    assert "correct the data set's annotations" in found


def test_what_is_right_in_no_reading_is_told_of_with_the_preprocessing(truth):
    payloads = dict.fromkeys(range(len(truth.images)), b"")
    (found,) = detection_doubt.of_detections(payloads, truth, OF_COCO, 0.0, is_own_file=True)
    assert "mAP 0.00% is next to nothing" in found
    assert "size=300,resize=stretch" in found


def test_a_weak_detector_in_another_numbering_is_told_of(truth):
    meant = OF_COCO.detection.numbered(Numbering.COCO_LESS_1)
    payloads = answered(truth, OF_COCO, meant)
    # It finds the objects of one image in nine.
    payloads = {index: payload if index % 9 == 0 else b"" for index, payload in payloads.items()}
    value = mean_precision(payloads, truth, is_contiguous=False)
    (*_, found) = detection_doubt.of_detections(payloads, truth, OF_COCO, value, is_own_file=True)
    assert value < 0.05
    assert found.endswith("with --classes coco-1")


def test_a_detector_that_knows_more_classes_than_the_file_is_not_doubted_for_it(truth):
    kept = IDS[:20]
    few = replace(
        truth,
        annotations=tuple(each for each in truth.annotations if each["category_id"] in kept),
        category_ids=kept,
        category_names=NAMES[:20],
    )
    payloads = answered(truth, OF_COCO, OF_COCO.detection)
    value = mean_precision(payloads, few, is_contiguous=False)
    assert value == 1.0
    assert detection_doubt.of_detections(payloads, few, OF_COCO, value, is_own_file=True) == ()

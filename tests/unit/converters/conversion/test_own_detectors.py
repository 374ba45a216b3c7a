from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.conversion import own_files
from converters.formats.graph import Graph
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.recipes import COCO_300, COCO_1200_ONNX
from harness.models.spec import BoxOrder, Detection, DType, Layout, Numbering, TensorSpec

SLOTS = 7
MOBILENET = MODELS["ssd-mobilenet"].variants
RESNET = MODELS["ssd-resnet34"].variants

LITERT = "TFLite_Detection_PostProcess"


def _answer(role, batch, slots=SLOTS):
    """A detector's answer; every image's depends on the image alone."""
    rows = np.arange(slots, dtype=np.float32)
    darkness = batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
    scores = 1 / (2 + rows) + darkness % 1 / 1000
    return {
        "boxes": np.repeat(scores[:, :, None], 4, axis=2),
        "scores": scores,
        "classes": np.ones_like(scores) * (rows + 1),
        "labels": (np.ones_like(scores) * (rows + 1)).astype(np.int64),
        "count": np.full(len(batch), slots, np.float32),
        "mask": np.zeros((len(batch), slots, 9, 9), np.float32),
    }[role]


def _own(roles, *, shape=(30, 20, 3), dtype=DType.UINT8, fixed_batch=0, open_axes=(), run=None):
    """A detector file; `roles` is what each output, by name, holds."""

    def run_all(batch):
        return [_answer(role, batch) for role in roles.values()]

    run = run or run_all
    answers = run(np.zeros((1, *shape), dtype.value))
    outputs = tuple(
        TensorSpec(name, DType(answer.dtype.name), answer.shape[1:])
        for name, answer in zip(roles, answers, strict=True)
    )
    return Graph(Path("own.onnx"), TensorSpec("x", dtype, shape), outputs, fixed_batch, run, open_axes)


STYLES = [
    (
        {
            "num_detections:0": "count",
            "detection_scores:0": "scores",
            "detection_classes:0": "classes",
            "detection_boxes:0": "boxes",
        },
        MOBILENET[Platform.ONNXRUNTIME],
        Detection(
            boxes="detection_boxes:0",
            scores="detection_scores:0",
            classes="detection_classes:0",
            count="num_detections:0",
        ),
    ),
    (
        {LITERT: "boxes", f"{LITERT}:1": "classes", f"{LITERT}:2": "scores", f"{LITERT}:3": "count"},
        MOBILENET[Platform.TFLITE],
        Detection(
            boxes=LITERT,
            scores=f"{LITERT}:2",
            classes=f"{LITERT}:1",
            count=f"{LITERT}:3",
            class_offset=1,
        ),
    ),
    (
        {"bboxes": "boxes", "labels": "labels", "scores": "scores"},
        MOBILENET[Platform.ONNXRUNTIME],
        Detection(boxes="bboxes", scores="scores", classes="labels", box_order=BoxOrder.XYXY),
    ),
    (
        {"detection_bboxes": "boxes", "detection_classes": "classes", "detection_scores": "scores"},
        RESNET[Platform.ONNXRUNTIME],
        Detection(
            boxes="detection_bboxes",
            scores="detection_scores",
            classes="detection_classes",
            is_contiguous=True,
        ),
    ),
]


@pytest.mark.parametrize(("roles", "base", "expected"), STYLES)
def test_outputs_are_told_by_the_names_that_detectors_give_them(roles, base, expected):
    assert own_files.variant_of(_own(roles), base).detection == expected


@pytest.mark.parametrize("classes", ["classes", "labels"])
def test_outputs_of_other_names_are_told_by_their_shapes_types_and_values(classes):
    roles = {"a": "scores", "b": "count", "c": classes, "d": "boxes"}
    found = own_files.variant_of(_own(roles), MOBILENET[Platform.TFLITE]).detection
    assert (found.boxes, found.scores, found.classes, found.count) == ("d", "a", "c", "b")
    assert found.box_order == BoxOrder.YXYX
    assert found.class_offset == 1


def _found(said=own_files.NOTHING_SAID, base=None, roles=None, **answers):
    """What is told of a detector that gives these answers to every image."""
    roles = roles or {"boxes": "boxes", "scores": "scores", "labels": "classes", "num_detections": "count"}

    def run(batch):
        one = {name: answers.get(name, _answer(role, batch)) for name, role in roles.items()}
        return [np.broadcast_to(value, (len(batch), *value.shape[1:])) for value in one.values()]

    graph = _own(roles, run=run)
    base = base or MOBILENET[Platform.ONNXRUNTIME]
    own_files.check_task(graph, base, said)
    return own_files.variant_of(graph, base, said).detection


CORNERS = np.array([[[0.1, 0.2, 0.4, 0.9]] * SLOTS], np.float32)
SIZED = np.array([[[0.6, 0.5, 0.4, 0.3]] * SLOTS], np.float32)


def test_boxes_far_beyond_the_image_are_in_pixels():
    assert _found(boxes=CORNERS).box_form == "xyxy"
    assert _found(boxes=CORNERS * 300).box_form == "xyxy,pixels"
    assert _found(own_files.Said(box_form="yxyx"), boxes=CORNERS * 300).box_form == "yxyx"


def test_boxes_that_end_before_they_begin_are_no_corners_and_are_asked_for():
    with pytest.raises(ConversionError, match=r"--boxes xywh .* or --boxes cxcywh"):
        _found(boxes=SIZED)
    assert _found(own_files.Said(box_form="cxcywh"), boxes=SIZED).box_form == "cxcywh"


@pytest.mark.parametrize("base", [MOBILENET[Platform.ONNXRUNTIME], RESNET[Platform.ONNXRUNTIME]])
def test_a_class_0_is_no_category_id_and_no_first_place_and_is_asked_for(base):
    labels = np.zeros((1, SLOTS), np.float32)
    with pytest.raises(ConversionError, match=r"--classes 0-79 .* --classes coco-1 .* --classes coco if"):
        _found(base=base, labels=labels)
    for numbering in Numbering:
        assert _found(own_files.Said(numbering=numbering), labels=labels).numbering == numbering


def test_a_class_0_in_an_empty_slot_says_nothing():
    labels = np.array([[3, *[0] * (SLOTS - 1)]], np.float32)
    count = np.array([1], np.float32)
    assert _found(labels=labels, num_detections=count).numbering == Numbering.COCO
    scores = np.array([[0.9, *[0] * (SLOTS - 1)]], np.float32)
    assert _found(labels=labels, scores=scores).numbering == Numbering.COCO


@pytest.mark.parametrize("name", ["num_detections", "n"])
def test_a_count_may_have_an_axis_of_1(name):
    names = ("boxes", "scores", "labels") if name == "num_detections" else ("a", "b", "c")
    roles = dict(zip((*names, name), ("boxes", "scores", "classes", "count"), strict=True))
    assert _found(roles=roles, **{name: np.full((1, 1), SLOTS, np.float32)}).count == name


def test_the_outputs_to_look_at_can_be_said():
    roles = {"a": "boxes", "b": "scores", "c": "scores", "d": "classes"}
    with pytest.raises(ConversionError, match="--outputs NAME,NAME,NAME chooses"):
        _found(roles=roles)
    found = _found(own_files.Said(outputs=("a", "c", "d")), roles=roles)
    assert (found.boxes, found.scores, found.classes) == ("a", "c", "d")


def test_boxes_and_scores_may_be_in_half_precision():
    halves = {"boxes": CORNERS.astype(np.float16), "scores": np.full((1, SLOTS), 0.5, np.float16)}
    assert _found(**halves).box_form == "xyxy"


def test_an_output_that_is_not_read_is_not_requested():
    roles = {"boxes": "boxes", "labels": "labels", "scores": "scores", "masks": "mask"}
    variant = own_files.variant_of(_own(roles), MOBILENET[Platform.ONNXRUNTIME])
    assert {output.name: output.is_requested for output in variant.outputs} == {
        "boxes": True,
        "labels": True,
        "scores": True,
        "masks": False,
    }


def test_the_preprocessing_is_the_models_own_with_the_files_size_type_and_axis_order():
    roles = {"bboxes": "boxes", "labels": "labels", "scores": "scores"}
    graph = _own(roles, shape=(3, 40, 50), dtype=DType.FP32)
    variant = own_files.variant_of(graph, RESNET[Platform.ONNXRUNTIME])
    assert variant.preprocess == replace(COCO_1200_ONNX, size_px=(40, 50))
    graph = _own(roles, shape=(40, 50, 3))
    variant = own_files.variant_of(graph, RESNET[Platform.ONNXRUNTIME])
    assert variant.preprocess == replace(
        COCO_1200_ONNX, size_px=(40, 50), steps=(), layout=Layout.NHWC, dtype=DType.UINT8
    )
    variant = own_files.variant_of(graph, RESNET[Platform.ONNXRUNTIME], own_files.Said("coco-300"))
    assert variant.preprocess == replace(COCO_300, size_px=(40, 50))


ROLES = {"bboxes": "boxes", "labels": "labels", "scores": "scores"}
BASE = MOBILENET[Platform.ONNXRUNTIME]


def test_sizes_that_the_file_leaves_open_are_declared_so():
    graph = _own(ROLES, open_axes=((0,), (0,), (0,)))
    outputs = own_files.variant_of(graph, BASE).outputs
    assert [output.shape for output in outputs] == [(-1, 4), (-1,), (-1,)]


def test_sizes_that_differ_from_image_to_image_are_declared_open():
    def run(batch):
        return [_answer(role, batch, 3 + int(batch.max() > 0)) for role in ROLES.values()]

    outputs = own_files.variant_of(_own(ROLES, run=run), BASE).outputs
    assert [output.shape for output in outputs] == [(-1, 4), (-1,), (-1,)]


def test_a_file_that_takes_batches_is_served_in_the_models_batches():
    assert own_files.variant_of(_own(ROLES), BASE).max_batch_size == BASE.max_batch_size == 32
    assert own_files.variant_of(_own(ROLES), RESNET[Platform.ONNXRUNTIME]).max_batch_size == 1


def test_an_onnx_file_of_a_fixed_batch_is_served_without_a_batch_axis():
    assert own_files.variant_of(_own(ROLES, fixed_batch=1), BASE).max_batch_size == 0
    other = own_files.variant_of(_own(ROLES, fixed_batch=1), MOBILENET[Platform.TENSORFLOW])
    assert other.max_batch_size == 1


def test_a_file_that_gives_all_images_the_first_ones_boxes_is_served_one_by_one():
    def run(batch):
        same = np.repeat(batch[:1], len(batch), axis=0)
        return [_answer(role, batch if role != "boxes" else same) * 100 for role in ROLES.values()]

    def refuse(batch):
        if len(batch) > 1:
            raise RuntimeError("reshape")
        return run(batch)

    assert own_files.variant_of(_own(ROLES, run=run), BASE).max_batch_size == 1
    assert own_files.variant_of(_own(ROLES, run=refuse), BASE).max_batch_size == 1


def test_a_detectors_tolerance_is_not_stretched_by_its_class_numbers():
    assert own_files.variant_of(_own(STYLES[0][0]), BASE).tolerance == BASE.tolerance


@pytest.mark.parametrize(
    ("roles", "found"),
    [
        ({"probabilities": "scores"}, r"probabilities \[n, 7\]"),
        ({"bboxes": "boxes", "scores": "scores"}, r"bboxes \[n, 7, 4\], scores \[n, 7\]"),
        ({"bboxes": "scores", "labels": "labels", "scores": "boxes"}, r"bboxes \[n, 7\]"),
        ({"a": "boxes", "b": "scores", "c": "scores"}, r"a \[n, 7, 4\], b \[n, 7\], c \[n, 7\]"),
        ({"a": "boxes", "b": "boxes", "c": "scores", "d": "labels"}, r"a \[n, 7, 4\], b \[n, 7, 4\]"),
        ({"map": "mask"}, r"map \[n, 7, 9, 9\]"),
    ],
)
def test_a_file_that_is_no_detector_is_refused_with_what_it_has(roles, found):
    message = rf"^own\.onnx: not a detector: outputs of boxes .* wanted; it has {found}"
    with pytest.raises(ConversionError, match=message):
        own_files.check_task(_own(roles), BASE)
    with pytest.raises(ConversionError, match=message):
        own_files.variant_of(_own(roles), BASE)


@pytest.mark.parametrize("brightest", [0, 140])
def test_scores_and_classes_of_no_name_are_told_apart_where_little_or_nothing_is_found(brightest):
    """Of the two test images the first is brighter than 140."""
    roles = {"a": "boxes", "b": "scores", "c": "classes"}

    def run(batch):
        boxes, scores, classes = (_answer(role, batch) for role in roles.values())
        is_found = batch.mean(axis=(1, 2, 3)) < brightest
        return [boxes, scores * is_found[:, None].astype(np.float32), classes]

    found = own_files.variant_of(_own(roles, run=run), BASE).detection
    assert (found.boxes, found.scores, found.classes) == ("a", "b", "c")


def test_a_detector_is_no_classifier():
    with pytest.raises(ConversionError, match=r"own\.onnx: not an image classifier"):
        own_files.check_task(_own(ROLES), MODELS["resnet50"].variants[Platform.ONNXRUNTIME])


def test_a_detector_whose_batch_is_fixed_at_several_is_refused():
    def run(batch):
        return [_answer(role, batch) for role in ROLES.values()]

    with pytest.raises(ConversionError, match="fixed at 8"):
        own_files.variant_of(_own(ROLES, fixed_batch=8, run=run), BASE)

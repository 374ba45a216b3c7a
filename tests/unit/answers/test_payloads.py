import numpy as np
import pytest

from harness.answers.payloads import decoder, payload_floats
from harness.errors import InferenceError
from harness.models import MODELS
from harness.models.platforms import Platform


def payload_of(variant, tensor) -> list[float]:
    payload = np.full((len(tensor) + 1, 1), -7, np.float32)
    assert decoder(variant)([tensor], range(len(tensor)), payload) == [4] * len(tensor)
    assert payload[-1, 0] == -7, "rows beyond the response stay untouched"
    return payload[:-1, 0].tolist()


def test_a_class_of_the_graph_loses_the_background_class() -> None:
    variant = MODELS["resnet50"].variants[Platform.ONNXRUNTIME]
    assert payload_of(variant, np.array([[1], [66], [1000]], np.int64)) == [0.0, 65.0, 999.0]


def test_scores_become_the_best_class_without_the_background_class() -> None:
    variant = MODELS["mobilenet"].variants[Platform.TENSORFLOW]
    scores = np.zeros((2, 1001), np.float32)
    scores[0, 66] = scores[1, 1000] = 0.9
    assert payload_of(variant, scores) == [65.0, 999.0]


def test_scores_of_a_thousand_classes_are_labels_already() -> None:
    variant = MODELS["resnet50"].variants[Platform.PYTORCH]
    scores = np.zeros((1, 1000), np.float32)
    scores[0, 65] = -1
    scores[0, 64] = 2
    assert payload_of(variant, scores) == [64.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    variant = MODELS["mobilenet"].variants[Platform.TENSORFLOW]
    scores = np.zeros((2, 1001), np.float32)
    scores[1, 3] = value
    with pytest.raises(InferenceError, match="NaN or infinite"):
        payload_of(variant, scores)


def records_of(variant, tensors, indices) -> list[list[list[float]]]:
    """The records that each sample's payload holds."""
    payload = np.full((len(indices), payload_floats(variant)), -7, np.float32)
    sizes = decoder(variant)(tensors, indices, payload)
    return [row[: size // 4].reshape(-1, 7).tolist() for row, size in zip(payload, sizes, strict=True)]


def slots(count: int, *rows: list[float]) -> np.ndarray:
    """The given rows, and zeros up to `count`."""
    array = np.zeros((count, len(rows[0])), np.float32)
    array[: len(rows)] = rows
    return array


def test_each_sample_gets_its_own_boxes_and_as_many_as_it_has() -> None:
    variant = MODELS["ssd-mobilenet"].variants[Platform.TENSORFLOW]
    count = np.array([[2], [0], [1]], np.float32)
    boxes = np.stack(
        [
            slots(100, [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.75, 1]),
            slots(100, [0, 0, 0, 0]),
            slots(100, [0, 0, 1, 1]),
        ]
    )
    scores = np.zeros((3, 100), np.float32)
    scores[0, :3], scores[2, 0] = (0.75, 0.5, 0.25), 1
    classes = np.zeros((3, 100), np.float32)
    classes[0, :2], classes[2, 0] = (90, 1), 44
    found = records_of(variant, [count, boxes, scores, classes], [7, 3, 5])
    # The third score of the first image is beyond its count.
    assert found[0] == [
        pytest.approx([7, 0.1, 0.2, 0.3, 0.4, 0.75, 90]),
        [7, 0.5, 0.5, 0.75, 1, 0.5, 1],
    ]
    assert found[1] == []
    assert found[2] == [[5, 0, 0, 1, 1, 1, 44]]


def test_corners_in_the_other_order_are_swapped_and_weak_boxes_dropped_wherever_they_are() -> None:
    # Ascending scores, as the reference's PyTorch model gives them: it stops at the first weak one.
    variant = MODELS["ssd-resnet34"].variants[Platform.ONNXRUNTIME]
    boxes = np.array([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 1, 0.75]]], np.float32)
    labels = np.array([[3, 80]], np.int64)
    scores = np.array([[0.04, 0.5]], np.float32)
    assert records_of(variant, [boxes, labels, scores], [1]) == [[[1, 0.25, 0.5, 0.75, 1, 0.5, 80]]]


def test_an_image_without_any_box_has_an_empty_payload() -> None:
    variant = MODELS["ssd-resnet34"].variants[Platform.ONNXRUNTIME]
    nothing = [np.zeros((1, 0, 4), np.float32), np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32)]
    assert records_of(variant, nothing, [0]) == [[]]


def test_classes_that_count_from_zero_become_coco_ids() -> None:
    variant = MODELS["ssd-mobilenet"].variants[Platform.TFLITE]
    boxes, classes = slots(100, [0, 0, 1, 1])[None], slots(100, [0])[None, :, 0]
    scores, count = slots(100, [0.5])[None, :, 0], np.array([[1]], np.float32)
    assert records_of(variant, [boxes, classes, scores, count], [0]) == [[[0, 0, 0, 1, 1, 0.5, 1]]]


def test_what_is_left_in_slots_beyond_the_count_does_no_harm() -> None:
    variant = MODELS["ssd-mobilenet"].variants[Platform.TFLITE]
    boxes, classes = slots(100, [0, 0, 1, 1])[None], slots(100, [0])[None, :, 0]
    scores, count = slots(100, [0.5])[None, :, 0], np.array([[1]], np.float32)
    boxes[0, 50], classes[0, 51], scores[0, 52] = np.nan, np.inf, np.nan
    assert records_of(variant, [boxes, classes, scores, count], [0]) == [[[0, 0, 0, 1, 1, 0.5, 1]]]
    count[0, 0] = np.nan
    with pytest.raises(InferenceError, match="NaN or infinite"):
        records_of(variant, [boxes, classes, scores, count], [0])


@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_boxes_that_are_no_numbers_are_refused(where: str) -> None:
    variant = MODELS["ssd-resnet34"].variants[Platform.PYTORCH]
    tensors = {"boxes": np.zeros((1, 200, 4), np.float32), "classes": np.zeros((1, 200), np.int64)}
    tensors["scores"] = np.full((1, 200), 0.5, np.float32)
    # In a detection, whose fourth box and tenth score they are.
    tensors[where].flat[9] = np.nan
    with pytest.raises(InferenceError, match="NaN or infinite"):
        records_of(variant, list(tensors.values()), [0])


def test_what_fills_up_slots_without_a_detection_is_of_no_account() -> None:
    variant = MODELS["ssd-resnet34"].variants[Platform.PYTORCH]
    boxes, classes = np.zeros((1, 200, 4), np.float32), np.ones((1, 200), np.int64)
    scores = np.zeros((1, 200), np.float32)
    scores[0, :3] = 0.5, -np.inf, -1
    boxes[0, 1:] = np.nan
    assert len(records_of(variant, [boxes, classes, scores], [0])[0]) == 1
    scores[0, 7] = np.inf
    with pytest.raises(InferenceError, match="NaN or infinite"):
        records_of(variant, [boxes, classes, scores], [0])


def test_more_boxes_than_a_payload_holds_are_refused() -> None:
    variant = MODELS["ssd-resnet34"].variants[Platform.ONNXRUNTIME]
    many = [
        np.zeros((1, 1001, 4), np.float32),
        np.zeros((1, 1001), np.int64),
        np.zeros((1, 1001), np.float32),
    ]
    with pytest.raises(InferenceError, match="1001 detections of one image; most are 1000"):
        records_of(variant, many, [0])

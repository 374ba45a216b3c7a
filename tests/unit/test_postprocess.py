import numpy as np
import pytest

from harness.errors import InferenceError
from harness.models import MODELS
from harness.models.spec import Platform
from harness.postprocess import decoder


def payload_of(variant, tensor) -> list[float]:
    payload = np.full((len(tensor) + 1, 1), -7, np.float32)
    decoder(variant)([tensor], payload)
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

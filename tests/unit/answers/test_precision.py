import numpy as np
import pytest

from harness.answers.accuracy import score_classification
from harness.answers.precision import (
    allowed_difference,
    is_full,
    is_near_best,
    largest_difference,
    scores_of,
)
from harness.models import MODELS
from harness.models.model_config import ServerSettings, model_config
from harness.models.platforms import Platform
from harness.models.spec import Precision

# The best, two below it, and a thousand of 1 and -1, which make the deviation 1 (1.009 with the three).
LOGITS = np.array([[3.0, 2.55, 2.45, *(1.0, -1.0) * 500]])


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_classes_within_half_a_deviation_of_the_best_may_win(scale: float) -> None:
    assert np.flatnonzero(is_near_best(scale * LOGITS)[0]).tolist() == [0, 1]


def test_probabilities_are_judged_by_the_scores_they_were_made_from() -> None:
    odds = np.exp(LOGITS)
    assert (is_near_best(odds / odds.sum()) == is_near_best(LOGITS)).all()


def test_a_class_without_a_rival_is_the_only_one_that_may_win() -> None:
    certain = np.zeros((1, 1001), np.float32)
    certain[0, 7] = 1
    assert np.flatnonzero(is_near_best(certain)[0]).tolist() == [7]


def test_a_class_that_is_left_out_stretches_no_spread_and_never_wins() -> None:
    left_out = np.append(LOGITS, [[-np.inf]], axis=1)
    assert (is_near_best(left_out) == np.append(is_near_best(LOGITS), [[False]], axis=1)).all()
    assert allowed_difference(left_out, 0.01) == allowed_difference(LOGITS, 0.01)
    alone = np.array([[-np.inf, 0.0, -np.inf]])
    assert is_near_best(alone).tolist() == [[False, True, False]]
    assert allowed_difference(np.full(3, -np.inf), 0.01) == 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([-np.inf, 1.5, 2.0], 0.5),
        ([np.inf, 1.0, 2.0], np.inf),
        ([-1e30, 1.0, 2.0], np.inf),
        ([-np.inf, np.nan, 2.0], np.nan),
    ],
)
def test_equal_infinities_are_not_apart(other: list[float], expected: float) -> None:
    one = np.array([-np.inf, 1.0, 2.0], np.float32)
    assert largest_difference(one, np.array(other, np.float32)) == pytest.approx(expected, nan_ok=True)


def test_near_labels_count_as_right_for_their_own_sample_only() -> None:
    payloads = {index: np.float32(label).tobytes() for index, label in enumerate((5, 6, 7))}
    accuracy = score_classification(
        payloads,
        [5, 5, 5],
        [frozenset({5}), frozenset({5, 6}), frozenset({5, 6})],
        metric="top-1",
        truth="source framework",
        threshold=1.0,
    )
    assert (accuracy.good, accuracy.total, accuracy.is_met) == (2, 3, False)


@pytest.mark.parametrize(
    ("precision", "answer"), [(None, True), ("fp32", True), ("bf16", False), ("unknown", False)]
)
def test_only_fp32_is_compared_exactly(precision: str | None, answer: bool) -> None:
    assert is_full(precision) == answer


def test_scores_are_found_beside_the_arg_max_that_is_asked_for() -> None:
    scores = scores_of(MODELS["resnet50"].variants[Platform.OPENVINO])
    assert scores is not None
    assert scores.name == "softmax_tensor:0"
    assert scores_of(MODELS["ssd-mobilenet"].variants[Platform.OPENVINO]) is None


@pytest.mark.parametrize("model", MODELS)
def test_openvino_serves_what_onnx_runtime_serves(model: str) -> None:
    variants = MODELS[model].variants
    ours, theirs = (
        model_config("x", variants[platform]) for platform in (Platform.OPENVINO, Platform.ONNXRUNTIME)
    )
    assert (ours.input, ours.output) == (theirs.input, theirs.output)
    assert ours.default_model_filename == theirs.default_model_filename == "model.onnx"
    assert ours.max_batch_size == theirs.max_batch_size
    assert ours.backend == "openvino"


def test_openvino_is_told_its_precision_and_its_kind_of_device() -> None:
    variant = MODELS["mobilenet"].variants[Platform.OPENVINO]
    config = model_config("x", variant, ServerSettings(precision=Precision.FP32, threads=2))
    assert {name: value.string_value for name, value in config.parameters.items()} == {
        "ENABLE_BATCH_PADDING": "YES",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": "2",
    }
    assert config.instance_group[0].kind == config.instance_group[0].KIND_CPU
    one = model_config("x", variant, ServerSettings(max_batch_size=1))
    assert not one.parameters

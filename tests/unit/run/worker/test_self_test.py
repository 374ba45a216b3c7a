"""Whether the model on a server is the verified one, by a made-up server that answers the stored inputs."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import service_pb2

from harness.errors import InferenceError, RequestFailed
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.spec import DType, TensorSpec, Variant
from harness.run.worker.job import SelfTest
from harness.run.worker.self_test import self_test

Arrays = dict[str, npt.NDArray[Any]]

COUNT = 4
SCORES = MODELS["mobilenet"].variants[Platform.TFLITE]
CLASSES = MODELS["resnet50"].variants[Platform.ONNXRUNTIME]
DETECTOR = MODELS["ssd-mobilenet"].variants[Platform.ONNXRUNTIME]
OPEN_DETECTOR = MODELS["ssd-resnet34"].variants[Platform.ONNXRUNTIME]
"""As many boxes as it finds."""


class FakeClient:
    """Answers inputs that it knows, whatever the order, by the rows of `outputs`."""

    url = "a:1"

    def __init__(self, variant: Variant, inputs: npt.NDArray[Any], outputs: Mapping[str, npt.NDArray[Any]]):
        self._variant, self._outputs = variant, outputs
        self._row_of = {row.tobytes(): number for number, row in enumerate(inputs)}

    def infer_now(self, request: bytes) -> bytes:
        # Behind gRPC's prefix of five bytes.
        asked = service_pb2.ModelInferRequest.FromString(request[5:])
        assert asked.model_name == "an_entry"
        row = self._row_of[asked.raw_input_contents[0]]
        answer = service_pb2.ModelInferResponse(model_name=asked.model_name)
        for output in self._variant.requested_outputs:
            values = self._outputs[output.name][row : row + 1]
            shape = values.shape if output.shape else (1, 1)
            answer.outputs.add(name=output.name, datatype=output.dtype.triton, shape=shape)
            answer.raw_output_contents.append(values.astype(output.dtype.value).tobytes())
        return bytes(answer.SerializeToString())


def inputs_of(variant: Variant) -> npt.NDArray[Any]:
    one = np.zeros((COUNT, *variant.input.shape), variant.input.dtype.value)
    one.reshape(COUNT, -1)[:, 0] = np.arange(COUNT)
    return one


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., SelfTest]:
    """Test a server that gives `outputs`, where `golden` are the source framework's stored answers."""

    def check(
        variant: Variant,
        golden: Arrays,
        outputs: Arrays,
        *,
        is_exact: bool = True,
        tolerance: float | None = None,
    ) -> SelfTest:
        inputs = inputs_of(variant)
        np.savez(tmp_path / "golden.npz", input=inputs, **golden)
        client = FakeClient(variant, inputs, outputs)
        file = tmp_path / "golden.npz"
        return self_test(client, "an_entry", variant, file, is_exact=is_exact, tolerance=tolerance)

    return check


def scores(seed: int) -> Arrays:
    """Of a thousand classes and one, each sample's winner well ahead."""
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(COUNT, 1001)).astype(np.float32)
    values[np.arange(COUNT), chance.choice(1001, COUNT, replace=False)] = 9
    return {SCORES.requested_outputs[0].name: values}


def golden_of(outputs: Arrays) -> Arrays:
    return {f"output:{name}": values for name, values in outputs.items()}


def classes(*winners: int) -> Arrays:
    return {CLASSES.requested_outputs[0].name: np.array(winners, np.int64)}


@pytest.mark.parametrize("is_exact", [True, False])
def test_the_verified_model_passes(check: Callable[..., SelfTest], is_exact: bool) -> None:
    check(SCORES, golden_of(scores(0)), scores(0), is_exact=is_exact)
    check(CLASSES, golden_of(classes(5, 6, 7, 8)), classes(5, 6, 7, 8), is_exact=is_exact)


@pytest.mark.parametrize("is_exact", [True, False])
def test_other_weights_are_found_out(check: Callable[..., SelfTest], is_exact: bool) -> None:
    with pytest.raises(InferenceError, match=r"an_entry on a:1 is not the verified model: output .*"):
        check(SCORES, golden_of(scores(0)), scores(1), is_exact=is_exact)
    with pytest.raises(InferenceError, match="convert it again, or check the server's model repository"):
        check(CLASSES, golden_of(classes(5, 6, 7, 8)), classes(1, 2, 3, 4), is_exact=is_exact)


class DeadClient:
    """Of a model whose stub has died: loaded, ready, and no more."""

    url = "a:1"

    def infer_now(self, request: bytes) -> bytes:
        raise RequestFailed("Stub process 'an_entry_0_0' is not healthy.", is_fatal=False)


def test_a_model_that_cannot_answer_is_named_with_what_to_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", input=inputs_of(CLASSES), **golden_of(classes(5, 6, 7, 8)))
    with pytest.raises(
        InferenceError, match=r"an_entry on a:1 cannot answer: Stub .* not healthy.*load the model"
    ):
        self_test(DeadClient(), "an_entry", CLASSES, tmp_path / "golden.npz", is_exact=True)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e5])
def test_scores_may_be_off_by_a_hundredth_of_their_spread_whatever_their_unit(
    check: Callable[..., None], unit: float
) -> None:
    outputs = {name: (values * unit).astype(np.float32) for name, values in scores(0).items()}
    (name,) = outputs
    # From -2.78 to the winner's 9.
    spread = float(np.ptp(outputs[name][2]))
    near, far = outputs[name].copy(), outputs[name].copy()
    near[2, 7] += 0.009 * spread
    far[2, 7] += 0.02 * spread
    found = check(SCORES, golden_of(outputs), {name: near})
    assert found.difference == pytest.approx(0.009 * spread, rel=0.01)
    assert found.tolerance == pytest.approx(0.01 * spread, rel=0.01)
    with pytest.raises(
        InferenceError, match=r"differs from the source framework by up to .* \(allowed: .*\) on"
    ):
        check(SCORES, golden_of(outputs), {name: far})


@pytest.mark.parametrize(("quanta", "passes"), [(1, True), (3, False)])
def test_whole_number_scores_may_be_on_either_side_of_a_half(
    check: Callable[..., SelfTest], quanta: int, passes: bool
) -> None:
    """As a quantised network's are."""
    (output,) = (replace(each, dtype=DType.UINT8) for each in SCORES.requested_outputs)
    variant = replace(SCORES, outputs=(output,))
    golden = np.full((COUNT, 1001), 10, np.uint8)
    golden[:, 7] = 200
    outputs = {output.name: np.where(golden == 10, golden + quanta, golden).astype(np.uint8)}
    if passes:
        check(variant, golden_of({output.name: golden}), outputs)
        return
    with pytest.raises(InferenceError, match="not the verified model"):
        check(variant, golden_of({output.name: golden}), outputs)


@pytest.mark.parametrize(("best", "passes"), [(199, True), (198, False)])
def test_of_two_winners_that_rounding_made_either_is_as_good(
    check: Callable[..., SelfTest], best: int, passes: bool
) -> None:
    (output,) = (replace(each, dtype=DType.UINT8) for each in SCORES.requested_outputs)
    variant = replace(SCORES, outputs=(output,))
    golden = np.full((COUNT, 1001), 10, np.uint8)
    golden[:, 7], golden[:, 8] = 200, best
    served = golden.copy()
    served[:, 7], served[:, 8] = 199, 200
    with contextlib.nullcontext() if passes else pytest.raises(InferenceError, match="not the verified"):
        check(variant, golden_of({output.name: golden}), {output.name: served})


def test_numbers_that_are_none_are_no_answer(check: Callable[..., SelfTest]) -> None:
    outputs = scores(0)
    (name,) = outputs
    served = {name: outputs[name].copy()}
    served[name][1, 5:] = np.nan
    with pytest.raises(InferenceError, match="differs from the source framework by up to nan"):
        check(SCORES, golden_of(outputs), served)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("is_exact", [True, False])
def test_a_class_that_is_left_out_may_be_so_and_may_not_win(
    check: Callable[..., SelfTest], is_exact: bool
) -> None:
    outputs = scores(0)
    (name,) = outputs
    outputs[name][:, 5] = -np.inf
    found = check(SCORES, golden_of(outputs), outputs, is_exact=is_exact)
    assert found.shortfall == 0
    served = {name: outputs[name].copy()}
    served[name][3, 5] = 20
    with pytest.raises(InferenceError, match="not the verified model"):
        check(SCORES, golden_of(outputs), served, is_exact=is_exact)


def test_another_winner_is_another_model_however_near_its_score_is_unless_bits_are_fewer(
    check: Callable[..., SelfTest],
) -> None:
    outputs = scores(0)
    (name,) = outputs
    outputs[name][3, [10, 20]] = 9.5, 9.499
    served = {name: outputs[name].copy()}
    served[name][3, [10, 20]] = 9.499, 9.5
    check(SCORES, golden_of(outputs), served, is_exact=False)
    with pytest.raises(InferenceError, match=r"differs from the source framework by up to 0\.001"):
        check(SCORES, golden_of(outputs), served)


def test_with_fewer_bits_scores_may_be_far_off_but_a_hopeless_class_may_not_win(
    check: Callable[..., SelfTest],
) -> None:
    outputs = scores(0)
    (name,) = outputs
    check(SCORES, golden_of(outputs), {name: outputs[name] * 1.3}, is_exact=False)
    served = {name: outputs[name].copy()}
    served[name][3, 10] = 20
    with pytest.raises(InferenceError, match="has another winner than the source framework's 1 times"):
        check(SCORES, golden_of(outputs), served, is_exact=False)


def test_where_winners_come_without_scores_half_of_them_must_be_the_same_in_fewer_bits(
    check: Callable[..., SelfTest],
) -> None:
    golden = golden_of(classes(5, 6, 7, 8))
    check(CLASSES, golden, classes(5, 6, 1, 2), is_exact=False)
    with pytest.raises(InferenceError, match="has another winner than the source framework's 3 times"):
        check(CLASSES, golden, classes(5, 1, 2, 3), is_exact=False)
    with pytest.raises(InferenceError, match="differs from the source framework by up to 1 "):
        check(CLASSES, golden, classes(5, 6, 7, 9))


# Of each stored input: ymin, xmin, ymax, xmax, score, class; well apart from each other.
BOXES = np.array(
    [
        [
            (0.05 * place, 0.1 * image, 0.05 * place + 0.3, 0.1 * image + 0.5, 0.95 - 0.06 * place, 1 + place)
            for place in range(10)
        ]
        for image in range(COUNT)
    ],
    np.float32,
)


def detections(variant: Variant, boxes: npt.NDArray[np.float32]) -> Arrays:
    """A detector's outputs that mean these boxes."""
    meant = variant.detection
    assert meant is not None
    count = boxes.shape[1]
    corners = [1, 0, 3, 2] if meant.box_order == "xyxy" else [0, 1, 2, 3]

    def padded(values: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
        (spec,) = (one for one in variant.outputs if one.name == output)
        return np.pad(values, _padding(spec, values))

    outputs = {
        meant.boxes: padded(boxes[:, :, corners], meant.boxes),
        meant.scores: padded(boxes[:, :, 4], meant.scores),
        meant.classes: padded(boxes[:, :, 5] - meant.class_offset, meant.classes),
    }
    if meant.count:
        outputs[meant.count] = np.full(COUNT, count)
    return outputs


def _padding(spec: TensorSpec, values: npt.NDArray[Any]) -> list[tuple[int, int]]:
    free = 0 if spec.shape[0] < 0 else spec.shape[0] - values.shape[1]
    return [(0, 0), (0, free), *[(0, 0)] * (values.ndim - 2)]


def golden_boxes() -> Arrays:
    images = np.broadcast_to(np.arange(COUNT, dtype=np.float32)[:, None, None], (COUNT, 10, 1))
    return {"detections": np.concatenate([images, BOXES], axis=2).reshape(-1, 7)}


detectors = pytest.mark.parametrize("variant", [DETECTOR, OPEN_DETECTOR], ids=["slots", "open"])


@detectors
@pytest.mark.parametrize("is_exact", [True, False])
def test_the_verified_one_passes_in_whatever_order_it_finds_boxes(
    check: Callable[..., SelfTest], variant: Variant, is_exact: bool
) -> None:
    check(variant, golden_boxes(), detections(variant, BOXES[:, ::-1]), is_exact=is_exact)


@detectors
@pytest.mark.parametrize("is_exact", [True, False])
def test_another_images_boxes_are_found_out(
    check: Callable[..., SelfTest], variant: Variant, is_exact: bool
) -> None:
    with pytest.raises(InferenceError, match=r"only .*% of its boxes are those of the source framework"):
        check(variant, golden_boxes(), detections(variant, np.roll(BOXES, 2, axis=0)), is_exact=is_exact)


@detectors
def test_boxes_may_be_further_apart_in_fewer_bits(check: Callable[..., SelfTest], variant: Variant) -> None:
    moved = BOXES.copy()
    moved[:, :, :4] += 0.04
    assert check(variant, golden_boxes(), detections(variant, moved), is_exact=False).tolerance == 0.1
    with pytest.raises(InferenceError, match=r"only 0\.0% of its boxes"):
        check(variant, golden_boxes(), detections(variant, moved))


@detectors
def test_one_box_in_ten_may_be_another_and_in_fewer_bits_five(
    check: Callable[..., SelfTest], variant: Variant
) -> None:
    # Of another class than any other box.
    changed = [BOXES.copy() for _ in range(7)]
    for count, boxes in enumerate(changed):
        boxes[:, :count, 5] = 60
    check(variant, golden_boxes(), detections(variant, changed[1]))
    with pytest.raises(InferenceError, match=r"only 80\.0% of its boxes"):
        check(variant, golden_boxes(), detections(variant, changed[2]))
    check(variant, golden_boxes(), detections(variant, changed[5]), is_exact=False)
    with pytest.raises(InferenceError, match=r"only 40\.0% of its boxes"):
        check(variant, golden_boxes(), detections(variant, changed[6]), is_exact=False)


def test_how_far_off_a_model_in_fewer_bits_may_be_is_given_and_how_far_it_is_is_told(
    check: Callable[..., SelfTest],
) -> None:
    outputs = scores(0)
    (name,) = outputs
    spread = outputs[name][3].std()
    outputs[name][3, [10, 20]] = 9.5 + spread, 9.5
    served = {name: outputs[name].copy()}
    served[name][3, 20] += 2 * spread
    found = check(SCORES, golden_of(outputs), served, tolerance=1.1)
    assert (found.agreement, found.shortfall) == (0.75, pytest.approx(1.0, rel=0.1))
    assert (found.difference, found.tolerance) == (None, 1.1)
    with pytest.raises(InferenceError, match="another winner than the source framework's 1 times"):
        check(SCORES, golden_of(outputs), served, tolerance=0.8)
    with pytest.raises(InferenceError, match="another winner than the source framework's 4 times"):
        check(SCORES, golden_of(scores(0)), scores(1), tolerance=1.1)
    golden = golden_of(classes(5, 6, 7, 8))
    assert check(CLASSES, golden, classes(5, 6, 1, 2), tolerance=0.3) == SelfTest(samples=4, agreement=0.5)
    with pytest.raises(InferenceError, match="another winner than the source framework's 3 times"):
        check(CLASSES, golden, classes(5, 1, 2, 3), tolerance=0.3)

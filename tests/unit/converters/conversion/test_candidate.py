from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.conversion.candidate import Candidate
from converters.conversion.own_files import NOTHING_SAID
from converters.conversion.weights import SourceFile
from converters.formats.graph import Graph
from harness.errors import ConversionError
from harness.models import MODELS, get_variant
from harness.models.manifest import SEEDED, USER_FILE
from harness.models.platforms import Platform
from harness.models.spec import DType, Nms, TensorSpec

MOBILENET = MODELS["mobilenet"]
_CLASSES = 1001


def _graph(path, name, offset=0.0):
    """Something of each image's mean, different for each class."""

    def run(batch):
        means = batch.mean(axis=(1, 2, 3))[:, None]
        return [(means * np.arange(_CLASSES) + offset).astype(np.float32)]

    outputs = (TensorSpec(name, DType.FP32, (_CLASSES,)),)
    return Graph(path, TensorSpec("input:0", DType.FP32, (3, 224, 224)), outputs, 0, run)


def _candidate(kind=SEEDED, name="MobilenetV1/Predictions/Reshape_1:0", suffix=".pb", offset=0.0):
    declared = get_variant(MOBILENET, Platform.ONNXRUNTIME)
    source, target = Path(f"source{suffix}"), Path("model.onnx")
    return Candidate(
        spec=MOBILENET,
        declared=declared,
        said=NOTHING_SAID,
        source=SourceFile(kind, source, "0"),
        reference=_graph(source, name),
        target=target,
        export=_graph(target, name, offset),
    )


def test_a_named_models_export_is_served_as_declared_and_equals_its_source():
    candidate = _candidate()
    assert candidate.variant == candidate.declared
    found = candidate.compare()
    assert found.parity.samples == len(candidate.inputs) == 16
    assert (found.parity.max_abs_diff, found.parity.agreement) == (0.0, 1.0)


def test_a_named_models_export_with_other_tensors_is_refused():
    with pytest.raises(ConversionError, match=r"model\.onnx: has .*softmax.* the declaration says"):
        _candidate(name="softmax").compare()


def test_an_export_that_differs_is_refused():
    with pytest.raises(ConversionError, match="does not equal its source"):
        _candidate(offset=1.0).compare()


def test_a_users_file_is_served_as_it_says_itself():
    candidate = _candidate(USER_FILE, name="softmax")
    assert [output.name for output in candidate.variant.outputs] == ["softmax"]
    assert candidate.compare().parity.agreement == 1.0


def test_a_source_that_does_not_equal_itself_is_called_random():
    candidate = _candidate(USER_FILE)
    chance = np.random.default_rng(0)

    def run(batch):
        (scores,) = candidate.export.run(batch)
        return [scores * chance.integers(0, 2, scores.shape).astype(np.float32)]

    with pytest.raises(ConversionError, match=r"^source\.pb: answers the same image otherwise each time"):
        replace(candidate, reference=replace(candidate.reference, run=run)).compare()


def _detections(batch):
    """Two boxes of every image, whatever is in it."""
    count = len(batch)
    boxes = np.tile(np.array([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.9, 0.9]], np.float32), (count, 1, 1))
    scores = np.tile(np.array([0.9, 0.8], np.float32), (count, 1))
    return [boxes, np.ones((count, 2), np.int64), scores]


def _blind_detector(suffix):
    """A detector of one's own that finds nothing in the test images."""

    def run(batch):
        boxes, labels, scores = _detections(batch)
        return [boxes, labels, scores * 0]

    outputs = (
        TensorSpec("bboxes", DType.FP32, (2, 4)),
        TensorSpec("labels", DType.INT64, (2,)),
        TensorSpec("scores", DType.FP32, (2,)),
    )
    image = TensorSpec("image", DType.FP32, (30, 20, 3))
    source, target = (Graph(Path(name), image, outputs, 0, run) for name in (f"own{suffix}", "model.onnx"))
    spec = MODELS["ssd-mobilenet"]
    declared = get_variant(spec, Platform.ONNXRUNTIME)
    file = SourceFile(USER_FILE, source.path, "0")
    return Candidate(spec, declared, NOTHING_SAID, file, source, target.path, target)


def test_a_detector_that_finds_nothing_in_the_test_images_is_served_as_it_is_and_not_converted():
    found = _blind_detector(".onnx").compare()
    assert found.found_nothing
    assert not len(found.golden["detections"])
    with pytest.raises(ConversionError, match=r"own\.pb: finds nothing in .*lower the score threshold"):
        _blind_detector(".pb").compare()


@pytest.mark.parametrize(("suffix", "choices"), [(".onnx", (Nms.CORRECTED, Nms.REFERENCE)), (".pt", ())])
def test_of_a_users_detector_nms_can_be_chosen_only_where_the_graph_was_built_here(suffix, choices):
    spec = MODELS["ssd-resnet34"]
    outputs = (
        TensorSpec("bboxes", DType.FP32, (2, 4)),
        TensorSpec("labels", DType.INT64, (2,)),
        TensorSpec("scores", DType.FP32, (2,)),
    )
    image = TensorSpec("image", DType.FP32, (3, 30, 20))
    source, target = (
        Graph(Path(name), image, outputs, 0, _detections) for name in (f"own{suffix}", "model.pt")
    )
    declared = get_variant(spec, Platform.PYTORCH)
    file = SourceFile(USER_FILE, source.path, "0")
    candidate = Candidate(spec, declared, NOTHING_SAID, file, source, target.path, target)
    assert candidate.variant.nms_choices == choices
    assert candidate.compare().parity.agreement == 1.0

"""SSD-ResNet34's converters: seeded weights in the published file's form, and what is built from them."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from converters.conversion import model_files, own_detectors, parity
from converters.inputs import fixed_inputs
from converters.networks.architectures import Layer, Padding, pad_widths
from converters.networks.ssd_resnet34.boxes import default_boxes
from converters.networks.ssd_resnet34.network import CLASSES, HEADS, LAYERS, features, heads
from converters.networks.ssd_resnet34.onnx import build_ssd_resnet34
from converters.networks.ssd_resnet34.torch import Detector
from converters.networks.ssd_resnet34.weights import read_weights
from harness.errors import ConfigError, ConversionError
from harness.models.declared.mobilenet import MOBILENET
from harness.models.declared.ssd_resnet34 import SSD_RESNET34
from harness.models.platforms import Platform
from harness.models.recipes import COCO_1200
from harness.models.spec import Nms
from tests.seeded import seeded_file

_IMAGES = 2
_TOLERANCE = 1e-3


def test_the_first_and_last_default_boxes_are_the_references():
    boxes = default_boxes()
    assert boxes.shape == (15130, 4)
    assert boxes.dtype == np.float32
    # MLCommons' inference repository, models/ssd_r34.py, dboxes_R34_coco: run there.
    assert boxes[0] == pytest.approx([0.01, 0.01, 0.07, 0.07])
    assert boxes[-1] == pytest.approx([0.83333, 0.83333, 0.61518, 1.0], abs=1e-5)


def test_default_boxes_go_along_the_row_first_and_then_to_the_next_shape():
    boxes = default_boxes()
    assert boxes[1] == pytest.approx([0.03, 0.01, 0.07, 0.07])
    assert boxes[50] == pytest.approx([0.01, 0.03, 0.07, 0.07])
    # The geometric mean of 84 and 180 pixels of 1200; then twice as wide as high.
    assert boxes[2500] == pytest.approx([0.01, 0.01, 0.10247, 0.10247], abs=1e-5)
    assert boxes[5000] == pytest.approx([0.01, 0.01, 0.09899, 0.04950], abs=1e-5)


@dataclass
class _Shapes:
    """Runs the network on shapes (height, channels) alone."""

    def conv(self, x, layer):
        assert x[1] == layer.inputs
        size = x[0] + sum(pad_widths(layer.padding, x[0], layer.kernel, layer.stride)) - layer.kernel
        return (size // layer.stride + 1, layer.filters)

    def relu(self, x):
        return x

    def add(self, x, y):
        assert x == y
        return x

    def max_pool(self, x, padding):
        assert padding == Padding.FIXED
        return (x[0] // 2, x[1])


def test_the_feature_maps_and_heads_have_the_published_sizes():
    maps = features(_Shapes(), (1200, 3))
    assert maps == [(150, 256), (75, 512), (38, 512), (19, 256), (9, 256), (7, 256)]
    found = heads(_Shapes(), maps)
    assert [location for location, _ in found] == [(50, 16), (25, 24), (13, 24), (7, 24), (3, 16), (3, 16)]
    assert sum(size * size * channels // CLASSES for _, (size, channels) in found) == 15130


def test_a_valid_padding_has_no_zeros():
    assert pad_widths(Padding.VALID, 19, 3, 2) == (0, 0)
    assert Layer("x", 1, 1, 3, padding=Padding.VALID).pad_px == 0
    assert Layer("x", 1, 1, 7).pad_px == 3


class _Nothing(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image, image


def _overlap(nms, first, second):
    return float(Detector(_Nothing(), nms).overlap(torch.tensor([first, second]))[0, 1])


@pytest.mark.parametrize(
    ("nms", "box", "expected"),
    [
        # What the reference's PyTorch model says of boxes that do not touch: seen there.
        (Nms.REFERENCE, (0.4, 0.4, 0.6, 0.6), 1.000),
        (Nms.REFERENCE, (0.37, 0.37, 0.57, 0.57), 0.566),
        (Nms.CORRECTED, (0.4, 0.4, 0.6, 0.6), 0.0),
        (Nms.CORRECTED, (0.37, 0.37, 0.57, 0.57), 0.0),
        (Nms.REFERENCE, (0.1, 0.0, 0.3, 0.2), 1 / 3),
        (Nms.CORRECTED, (0.1, 0.0, 0.3, 0.2), 1 / 3),
    ],
)
def test_overlaps_are_the_references_or_right(nms, box, expected):
    assert _overlap(nms, (0.0, 0.0, 0.2, 0.2), box) == pytest.approx(expected, abs=5e-4)


def _select(nms, boxes, scores):
    """`boxes` (n, 4), and `scores` by class (1-80) -> the filled slots as (label, score) and their boxes."""
    table = torch.zeros(1, 80, 15130)
    for label, row in scores.items():
        table[0, label - 1, : len(row)] = torch.tensor(row)
    boxes = [*boxes, *[(0.0, 0.0, 1.0, 1.0)] * (15130 - len(boxes))]
    detector = torch.jit.script(Detector(_Nothing(), nms))
    found, labels, best = (value[0] for value in detector.select(torch.tensor([boxes]), table))
    assert found.shape == (200, 4)
    assert (labels[best == 0] == 0).all()
    assert (found[best == 0] == 0).all()
    filled = int((best > 0).sum())
    pairs = [(int(label), round(float(score), 3)) for label, score in zip(labels, best, strict=True)]
    return pairs[:filled], found[:filled].tolist()


_APART = [(0.0, 0.0, 0.2, 0.2), (0.4, 0.4, 0.6, 0.6)]
_TOUCHING = [(0.0, 0.0, 0.4, 0.4), (0.05, 0.0, 0.45, 0.4), (0.3, 0.0, 0.7, 0.4)]


def test_the_reference_lets_boxes_that_do_not_touch_suppress_each_other():
    scores = {7: [0.9, 0.8]}
    assert _select(Nms.CORRECTED, _APART, scores)[0] == [(7, 0.9), (7, 0.8)]
    assert _select(Nms.REFERENCE, _APART, scores)[0] == [(7, 0.9)]


@pytest.mark.parametrize("nms", Nms)
def test_where_boxes_overlap_both_kinds_keep_the_best_of_each_class(nms):
    pairs, boxes = _select(nms, _TOUCHING, {1: [0.6, 0.7, 0.5], 80: [0.3, 0.2, 0.05]})
    assert pairs == [(1, 0.7), (1, 0.5), (80, 0.3)]
    assert boxes[0] == pytest.approx(_TOUCHING[1])
    assert boxes[1] == pytest.approx(_TOUCHING[2])
    assert boxes[2] == pytest.approx(_TOUCHING[0])


def test_a_suppressed_box_suppresses_none():
    chain = [(0.0, 0.0, 0.4, 0.4), (0.1, 0.0, 0.5, 0.4), (0.2, 0.0, 0.6, 0.4)]
    assert _select(Nms.CORRECTED, chain, {3: [0.9, 0.8, 0.7]})[0] == [(3, 0.9), (3, 0.7)]


def test_at_most_200_detections_are_left():
    boxes = [(0.0, 0.01 * row, 0.9, 0.01 * row + 0.001) for row in range(150)]
    scores = np.linspace(0.9, 0.1, 150).tolist()
    pairs, _ = _select(Nms.CORRECTED, boxes, {1: scores, 2: scores})
    assert len(pairs) == 200
    assert [pair[0] for pair in pairs].count(1) == 100


def test_without_candidates_all_slots_are_empty():
    assert _select(Nms.CORRECTED, _APART, {}) == ([], [])


@pytest.fixture(scope="module")
def source():
    return seeded_file("ssd-resnet34", "onnx")


@pytest.fixture(scope="module")
def arrays(source):
    """What the file is made from: its weights, in the converters' axis order."""
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(source).graph.initializer
        if "/" in tensor.name
    }
    return {name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array for name, array in stored.items()}


@pytest.fixture(scope="module")
def images():
    return fixed_inputs(COCO_1200, _IMAGES)


_PLATFORMS = {
    ".onnx": Platform.ONNXRUNTIME,
    ".graphdef": Platform.TENSORFLOW,
    ".pt": Platform.PYTORCH,
}


@pytest.fixture(scope="module")
def opened(source):
    """The seeded file, opened once: a picture of 1200x1200 takes seconds, and opening runs one."""
    with model_files.open_file(source, SSD_RESNET34) as graph:
        yield graph


def _found(graph, images):
    """Detections of each image: (m, 6) of label, score, x1, y1, x2, y2."""
    if graph.fixed_batch:
        answers = [graph.run(image[None]) for image in images]
    else:
        batch = graph.run(images)
        answers = [[output[index : index + 1] for output in batch] for index in range(len(images))]
    variant = SSD_RESNET34.variants[_PLATFORMS[graph.path.suffix]]
    order = [output.name for output in variant.outputs]
    reading = variant.detection
    results = []
    for answer in answers:
        boxes, labels, scores = (
            answer[order.index(name)][0] for name in (reading.boxes, reading.classes, reading.scores)
        )
        boxes = boxes[:, (1, 0, 3, 2)] if reading.box_order == "yxyx" else boxes
        rows = np.column_stack((labels, scores, boxes))
        assert (np.diff(scores) <= 0).all()
        assert ((labels == 0) == (scores == 0)).all()
        results.append(rows[scores > 0])
    return results


@pytest.fixture(scope="module")
def expected(opened, images):
    return _found(opened, images)


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    """What is built anew for the two other frameworks, by platform."""
    folder = tmp_path_factory.mktemp("exported")
    targets = {
        platform: folder / platform.facts.model_filename
        for platform in (Platform.TENSORFLOW, Platform.PYTORCH)
    }
    for platform, target in targets.items():
        model_files.export(platform, source, target, SSD_RESNET34)
    return targets


@pytest.mark.parametrize("platform", [Platform.TENSORFLOW, Platform.PYTORCH])
def test_every_framework_finds_the_same_boxes(platform, exported, images, expected):
    with model_files.open_file(exported[platform], SSD_RESNET34) as graph:
        answers = _found(graph, images)
    for wanted, found in zip(expected, answers, strict=True):
        assert len(wanted) == len(found)
        distances = np.abs(wanted[:, None] - found[None]).max(axis=2)
        assert distances.min(axis=1).max() < _TOLERANCE
        assert distances.min(axis=0).max() < _TOLERANCE


def test_seeded_weights_find_tens_of_objects_of_several_classes(expected):
    for found in expected:
        assert 10 <= len(found) < 200
        assert len(np.unique(found[:, 0])) >= 3
    scores = np.concatenate(expected)[:, 1]
    assert (scores < 0.3).any()
    assert (scores > 0.6).any()


def test_a_file_for_one_image_leaves_the_number_of_its_boxes_open(opened):
    variant = SSD_RESNET34.variants[Platform.ONNXRUNTIME]
    assert opened.fixed_batch == 1
    assert opened.open_axes == ((0,), (0,), (0,))
    parity.check_tensors(opened, variant)
    assert own_detectors.output_shapes(opened, fixed_inputs(variant.preprocess, 1)) == variant.outputs


def test_an_image_without_detections_is_answered_with_none(arrays, images, tmp_path):
    blind = dict(arrays)
    for _, head in HEADS:
        bias = arrays[f"{head.name}/bias"].copy()
        bias[: head.filters // CLASSES] = 1000
        blind[f"{head.name}/bias"] = bias
    build_ssd_resnet34(blind, tmp_path / "blind.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "blind.onnx"))
    answers = session.run(None, {session.get_inputs()[0].name: images[:1]})
    assert [answer.shape for answer in answers] == [(1, 0, 4), (1, 0), (1, 0)]


def _folded(model):
    """The same network with every BatchNormalization in its convolution's weights and bias."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes, normalised = [], {n.input[0]: n for n in model.graph.node if n.op_type == "BatchNormalization"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.output[0] in normalised:
            following = normalised[node.output[0]]
            gamma, beta, mean, variance = (arrays[name].astype(np.float64) for name in following.input[1:])
            scale = gamma / np.sqrt(variance + 1e-5)
            arrays[node.input[1]] = (arrays[node.input[1]] * scale[:, None, None, None]).astype(np.float32)
            arrays[node.name] = (beta - mean * scale).astype(np.float32)
            node.input.append(node.name)
            node.output[0] = following.output[0]
        if node.op_type != "BatchNormalization":
            nodes.append(node)
    return arrays, nodes


def _renamed(arrays, nodes):
    """Weights under numbers, those of every other convolution from a Constant node behind an Identity."""
    names = {name: str(1000 + index) for index, name in enumerate(arrays)}
    constants = []
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    for name in list(arrays)[::2]:
        value = numpy_helper.from_array(arrays.pop(name))
        constants.append(helper.make_node("Constant", [], [f"c{names[name]}"], value=value))
        constants.append(helper.make_node("Identity", [f"c{names[name]}"], [names[name]]))
    return {names[name]: array for name, array in arrays.items()}, [*constants, *nodes]


def _rewrite(source, target, *changes):
    model = onnx.load(source)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    for change in changes:
        arrays, nodes = _folded(model) if change is _folded else change(arrays, nodes)
    stored = [numpy_helper.from_array(array.copy(), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "copy", model.graph.input, model.graph.output, stored)
    onnx.save(helper.make_model(graph, opset_imports=model.opset_import, ir_version=7), target)


@pytest.mark.parametrize("changes", [(_folded,), (_renamed,), (_folded, _renamed)])
def test_weights_are_found_however_they_are_named_and_folded(changes, source, tmp_path):
    _rewrite(source, tmp_path / "copy.onnx", *changes)
    wanted, found = read_weights(source), read_weights(tmp_path / "copy.onnx")
    assert list(found) == [layer.name for layer in LAYERS]
    for name, layer in wanted.items():
        np.testing.assert_allclose(found[name].weights, layer.weights, rtol=1e-6)
        np.testing.assert_allclose(found[name].bias, layer.bias, rtol=1e-5, atol=1e-6)


def test_normalisation_is_folded_into_the_weights(arrays, source):
    name = "backbone.layer3.0.downsample"
    parts = {part: arrays[f"{name}/{part}"] for part in ("weights", "gamma", "beta", "mean", "variance")}
    found = read_weights(source)[name]
    scale = parts["gamma"][5] / np.sqrt(parts["variance"][5] + 1e-5)
    assert found.weights[5, 7, 0, 0] == pytest.approx(parts["weights"][0, 0, 7, 5] * scale, rel=1e-5)
    assert found.bias[5] == pytest.approx(parts["beta"][5] - parts["mean"][5] * scale, rel=1e-4, abs=1e-5)


def test_a_file_of_another_network_is_refused_with_the_layer_that_is_missing(source, tmp_path):
    def narrowed(arrays, nodes):
        return {**arrays, "extras.3.conv2/weights": np.zeros((8, 128, 3, 3), np.float32)}, nodes

    _rewrite(source, tmp_path / "other.onnx", narrowed)
    with pytest.raises(
        ConversionError, match=r"other\.onnx: .* layer extras\.4\.conv2, .* \[256, 128, 3, 3\]"
    ):
        read_weights(tmp_path / "other.onnx")


def test_a_file_with_further_convolutions_is_refused(source, tmp_path):
    def widened(arrays, nodes):
        more = helper.make_node("Conv", ["image", "w", "b"], ["unused"])
        further = {"w": np.zeros((5, 3, 1, 1), np.float32), "b": np.zeros(5, np.float32)}
        return arrays | further, [*nodes, more]

    _rewrite(source, tmp_path / "other.onnx", widened)
    with pytest.raises(ConversionError, match=r"all 51 convolutions of one and 1 more, .* \[5, 3, 1, 1\]"):
        read_weights(tmp_path / "other.onnx")


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    with pytest.raises(ConversionError, match=r"page\.onnx: not an ONNX file"):
        read_weights(tmp_path / "page.onnx")


def test_other_models_are_not_made_from_onnx_files(source, tmp_path):
    with pytest.raises(ConfigError, match="mobilenet on pytorch is not made from ONNX files"):
        model_files.export(Platform.PYTORCH, source, tmp_path / "model.pt", MOBILENET)


def test_the_kind_of_nms_is_chosen_at_the_export(source, exported, tmp_path):
    model_files.export(Platform.PYTORCH, source, tmp_path / "model.pt", SSD_RESNET34, Nms.REFERENCE)
    # Cutting negative sides off is all that the two differ in.
    is_clamped = [
        "aten::clamp" in str(torch.jit.load(path).inlined_graph)
        for path in (exported[Platform.PYTORCH], tmp_path / "model.pt")
    ]
    assert is_clamped == [True, False]

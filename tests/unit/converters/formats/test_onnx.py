"""ONNX files: weights beside them, and how their inputs are quantised."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converters.conversion.model_files import digest
from converters.formats.graph import Images
from converters.formats.onnx import copy_onnx, external_files, load_onnx, open_onnx
from harness.errors import ConversionError
from harness.models.spec import Quantization

WEIGHTS = np.arange(4, dtype=np.float32)


def beside(folder: Path, name: str) -> onnx.TensorProto:
    """A tensor whose numbers are in a file of its name."""
    (folder / name).write_bytes(WEIGHTS.tobytes())
    tensor = numpy_helper.from_array(WEIGHTS, name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=name)
    return tensor


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [tensor.name], value=tensor)


def branch(name: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4])
    return helper.make_graph(nodes, name, [], [output], weights)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Weights of the graph, a constant, and both of the branches of a choice."""
    choice = helper.make_node(
        "If",
        ["which"],
        ["chosen"],
        then_branch=branch("then", [], [beside(tmp_path, "then")]),
        else_branch=branch("else", [constant(beside(tmp_path, "else"))], []),
    )
    total = helper.make_node("Sum", ["weights", "constant", "chosen"], ["total"])
    graph = helper.make_graph(
        [constant(beside(tmp_path, "constant")), choice, total],
        "graph",
        [helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("total", onnx.TensorProto.FLOAT, [4])],
        [beside(tmp_path, "weights")],
    )
    path = tmp_path / "model.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def test_weights_beside_a_file_are_found_in_constants_and_in_branches(model: Path) -> None:
    assert [file.name for file in external_files(model)] == ["constant", "else", "then", "weights"]


@pytest.mark.parametrize("name", ["constant", "else", "then", "weights"])
def test_other_weights_beside_a_file_make_another_model(model: Path, name: str) -> None:
    before = digest(model)
    model.with_name(name).write_bytes((WEIGHTS + 1).tobytes())
    assert digest(model) != before


def test_a_copy_has_all_its_weights_itself(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "model.onnx"
    copy.parent.mkdir()
    copy_onnx(model, copy)
    assert external_files(copy) == []
    nodes = onnx.load(copy).graph.node
    assert np.array_equal(numpy_helper.to_array(nodes[0].attribute[0].t), WEIGHTS)
    branches = {attribute.name: attribute.g for attribute in nodes[1].attribute}
    assert np.array_equal(numpy_helper.to_array(branches["then_branch"].initializer[0]), WEIGHTS)


def quantised(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, object] | None = None,
    output: str = "real",
) -> Path:
    """A file whose `image`, of bytes, is read by these operations."""
    values = {"scale": np.float32(1.5), "zero": np.uint8(110)} | (constants or {})
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def found(path: Path) -> Quantization | None:
    with open_onnx(path, Images((8, 8))) as graph:
        return graph.quantization


def node(operation: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operation, inputs.split(), outputs.split(), **attributes)


DEQUANTIZE = node("DequantizeLinear", "kept scale zero", "real")


@pytest.mark.parametrize(
    "before",
    [
        [node("MaxPool", "image", "kept", kernel_shape=[2, 2])],
        [node("Pad", "image pads zero", "kept")],
        [helper.make_node("Resize", ["image", "", "scales"], ["kept"])],
        [node("Gather", "image order", "kept", axis=1)],
        [node("Split", "image", "r g b", axis=1), node("Concat", "b g r", "kept", axis=1)],
        [node("Slice", "image starts ends", "half"), node("SpaceToDepth", "half", "kept", blocksize=2)],
    ],
)
def test_a_quantised_input_is_known_behind_what_stores_its_numbers_alike(
    tmp_path: Path, before: list[onnx.NodeProto]
) -> None:
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "order": np.array([2, 1, 0]),
        "starts": np.array([0, 0, 0, 0]),
        "ends": np.array([9, 3, 4, 4]),
    }
    path = quantised(tmp_path / "q.onnx", [*before, DEQUANTIZE], constants)
    assert found(path) == Quantization(1.5, 110)


def test_to_ask_for_an_inputs_size_is_not_to_read_its_numbers(tmp_path: Path) -> None:
    """As every export of `x.view(x.size(0), -1)` does."""
    path = quantised(
        tmp_path / "q.onnx",
        [
            node("DequantizeLinear", "image scale zero", "real"),
            node("Shape", "image", "sizes"),
            node("Gather", "sizes first", "count"),
            node("Concat", "count rest", "shape", axis=0),
            node("Reshape", "real shape", "flat"),
        ],
        {"first": np.array([0]), "rest": np.array([-1])},
        "flat",
    )
    assert found(path) == Quantization(1.5, 110)


@pytest.mark.parametrize(
    ("nodes", "reader"),
    [
        (
            [
                node("DequantizeLinear", "image scale zero", "one"),
                node("Cast", "image", "two", to=onnx.TensorProto.FLOAT),
                node("Add", "one two", "real"),
            ],
            "Cast",
        ),
        (
            [
                node("Clip", "image zero", "clipped"),
                node("Flatten", "clipped", "kept"),
                DEQUANTIZE,
            ],
            "Clip",
        ),
    ],
)
def test_an_input_that_is_not_only_dequantised_is_asked_about(
    tmp_path: Path, nodes: list[onnx.NodeProto], reader: str
) -> None:
    path = quantised(tmp_path / "q.onnx", nodes)
    with pytest.raises(
        ConversionError, match=rf"^{path}: input image is read by {reader} beside or before what dequantises"
    ):
        found(path)


def test_an_input_that_is_taken_as_it_is_may_be_quantised_further_on(tmp_path: Path) -> None:
    path = quantised(
        tmp_path / "q.onnx",
        [
            # Its second result is left out, as the second operand of Clip is.
            helper.make_node("MaxPool", ["image"], ["same", ""], kernel_shape=[1, 1]),
            node("Cast", "same", "pixels", to=onnx.TensorProto.FLOAT),
            helper.make_node("Clip", ["pixels", "", "most"], ["clipped"]),
            node("QuantizeLinear", "clipped scale zero", "stored"),
            helper.make_node("Clip", ["stored", "", "zero"], ["kept"]),
            DEQUANTIZE,
        ],
        {"most": np.float32(200)},
    )
    assert found(path) is None


@pytest.mark.parametrize("value", [{"value_float": 0.5}, {"value_floats": [0.5]}])
def test_a_scale_may_be_a_constant_that_is_no_tensor(tmp_path: Path, value: dict[str, object]) -> None:
    held = helper.make_node("Constant", [], ["step"], **value)
    path = quantised(tmp_path / "q.onnx", [held, node("DequantizeLinear", "image step zero", "real", axis=0)])
    assert found(path) == Quantization(0.5, 110)


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_weights_beside_a_file_may_be_links_to_where_a_cache_keeps_them(model: Path, link) -> None:
    cache = model.parent / "cache"
    cache.mkdir()
    for file in external_files(model):
        link(file, file.rename(cache / file.name))
    (weights,) = load_onnx(model).graph.initializer
    assert np.array_equal(numpy_helper.to_array(weights), WEIGHTS)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"location": "weights", "offset": "8", "length": "16"},
            "weights, are cut short: 24 bytes wanted, 16",
        ),
        ({"location": "gone"}, "its weights, gone, are not beside it"),
        ({"location": "../weights"}, r"its weights are in \.\./weights, outside its folder"),
        ({"location": "/weights"}, "its weights are in /weights, outside its folder"),
        ({"location": "weights", "offset": "-8"}, "damaged"),
    ],
)
def test_weights_that_are_not_where_they_are_to_be_are_named(model: Path, entries, message: str) -> None:
    broken = onnx.load(model, load_external_data=False)
    (weights,) = broken.graph.initializer
    weights.ClearField("external_data")
    for key, value in entries.items():
        weights.external_data.add(key=key, value=value)
    model.write_bytes(broken.SerializeToString())
    with pytest.raises(ConversionError, match=f"^{model}: .*{message}"), open_onnx(model, Images((8, 8))):
        pass

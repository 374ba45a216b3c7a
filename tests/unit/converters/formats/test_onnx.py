"""Weights that lie beside an ONNX file: found wherever the file may name them, and copied with it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converters.conversion.model_files import digest
from converters.formats.graph import Images
from converters.formats.onnx import copy_onnx, external_files, load_onnx, open_onnx
from harness.errors import ConversionError

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

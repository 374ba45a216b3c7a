"""Seeded weights as an ONNX file in the form of the published one."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from converters.formats.graph import Array
from converters.formats.onnx import OPSET
from converters.networks.architectures import Layer, Padding
from converters.networks.seeds import Arrays
from converters.networks.ssd_resnet34.boxes import (
    CENTRE_VARIANCE,
    IOU_THRESHOLD,
    MOST_PER_CLASS,
    SCORE_THRESHOLD,
    SIZE_VARIANCE,
    default_boxes,
)
from converters.networks.ssd_resnet34.network import CLASSES, COORDINATES, features, heads
from harness.models.declared.ssd_resnet34 import SLOTS
from harness.models.recipes import COCO_1200_ONNX

_IR_VERSION = 7
"""The file format's version that came with the operator set: old runtimes refuse later ones."""


def build_ssd_resnet34(arrays: Arrays, target: Path) -> None:
    """Write SSD-ResNet34 with decoding and NMS inside, for one image at a time."""
    nodes = _Nodes(arrays)
    locations, logits = [], []
    for location, confidence in heads(nodes, features(nodes, "image")):
        locations.append(nodes.add_node("Reshape", location, nodes.shape(1, COORDINATES, -1)))
        logits.append(nodes.add_node("Reshape", confidence, nodes.shape(1, CLASSES, -1)))
    corners = _decode(nodes, nodes.add_node("Concat", *locations, axis=2))
    scores = nodes.add_node("Softmax", nodes.add_node("Concat", *logits, axis=2), axis=1)
    _suppress(nodes, corners, nodes.slice(scores, 1, 1, CLASSES))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *COCO_1200_ONNX.shape])
    outputs = [
        helper.make_tensor_value_info("bboxes", TensorProto.FLOAT, [1, "nbox", 4]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, "nbox"]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, "nbox"]),
    ]
    graph = helper.make_graph(nodes.nodes, "ssd-resnet34", [image], outputs, nodes.initialisers)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _decode(nodes: "_Nodes", locations: str) -> str:
    """(1, 4, n) -> (1, n, 4) corners x1, y1, x2, y2."""
    boxes = default_boxes().T[None]
    centre = nodes.scale(nodes.slice(locations, 1, 0, 2), CENTRE_VARIANCE * boxes[:, 2:])
    centre = nodes.add_node("Add", centre, nodes.constant(boxes[:, :2]))
    size = nodes.scale(nodes.slice(locations, 1, 2, 4), np.float32(SIZE_VARIANCE))
    half = nodes.scale(nodes.add_node("Exp", size), boxes[:, 2:] / 2)
    corners = [nodes.add_node("Sub", centre, half), nodes.add_node("Add", centre, half)]
    return nodes.add_node("Transpose", nodes.add_node("Concat", *corners, axis=1), perm=(0, 2, 1))


def _suppress(nodes: "_Nodes", corners: str, scores: str) -> None:
    """(1, n, 4) and (1, classes, n) -> the graph's outputs, of as many boxes as are left."""
    selected = nodes.add_node(
        "NonMaxSuppression",
        corners,
        scores,
        nodes.constant(np.array([MOST_PER_CLASS])),
        nodes.constant(np.array([IOU_THRESHOLD], np.float32)),
        nodes.constant(np.array([SCORE_THRESHOLD], np.float32)),
    )
    found = nodes.add_node("GatherND", scores, selected)
    # TopK refuses to look for more than there are.
    count = nodes.add_node("Min", nodes.add_node("Shape", found), nodes.constant(np.array([SLOTS])))
    best, order = nodes.top(found, count)
    kept = nodes.add_node("Gather", selected, order, axis=0)
    columns = [nodes.add_node("Gather", kept, nodes.constant(np.array(index)), axis=1) for index in (1, 2)]
    labels = nodes.add_node("Add", columns[0], nodes.constant(np.array(1)))
    nodes.add_node("Unsqueeze", best, nodes.shape(0), result="scores")
    nodes.add_node("Unsqueeze", labels, nodes.shape(0), result="labels")
    nodes.add_node("Gather", corners, columns[1], axis=1, result="bboxes")


class _Nodes:
    """`architectures.Operations` on the names of ONNX tensors, NCHW, collecting nodes and weights."""

    def __init__(self, arrays: Arrays) -> None:
        """Take the weights."""
        self._arrays = arrays
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []

    def conv(self, x: str, layer: Layer) -> str:
        weights = self._stored(f"{layer.name}/weights", (3, 2, 0, 1))
        options: dict[str, Any] = {
            "kernel_shape": (layer.kernel,) * 2,
            "strides": (layer.stride,) * 2,
            "pads": (layer.pad_px,) * 4,
        }
        if not layer.norm:
            return self.add_node("Conv", x, weights, self._stored(f"{layer.name}/bias"), **options)
        parts = [self._stored(f"{layer.norm.name}/{part}") for part in ("gamma", "beta", "mean", "variance")]
        x = self.add_node("Conv", x, weights, **options)
        return self.add_node("BatchNormalization", x, *parts, epsilon=layer.norm.epsilon)

    def relu(self, x: str, *, limit: float | None = None) -> str:
        assert limit is None
        return self.add_node("Relu", x)

    def add(self, x: str, y: str) -> str:
        return self.add_node("Add", x, y)

    def max_pool(self, x: str, padding: Padding) -> str:
        assert padding == Padding.FIXED
        return self.add_node("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))

    def add_node(self, operation: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        """Append a node; its only output is called `result`, or numbered."""
        name = result or f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [name], name, **attributes))
        return name

    def top(self, x: str, count: str) -> tuple[str, str]:
        """The `count` largest of a list, and where they are."""
        names = (f"TopK_{len(self.nodes)}_values", f"TopK_{len(self.nodes)}_indices")
        self.nodes.append(helper.make_node("TopK", [x, count], names, names[0], axis=0))
        return names

    def constant(self, array: Array) -> str:
        """Store an array under a number."""
        return self._store(f"constant_{len(self.initialisers)}", array)

    def shape(self, *sizes: int) -> str:
        """A shape, or axes, or positions: int64."""
        return self.constant(np.array(sizes, np.int64))

    def scale(self, x: str, factor: Array | np.float32) -> str:
        return self.add_node("Mul", x, self.constant(np.asarray(factor, np.float32)))

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        return self.add_node("Slice", x, self.shape(start), self.shape(end), self.shape(axis))

    def _stored(self, key: str, axes: tuple[int, ...] = (0,)) -> str:
        return self._store(key, self._arrays[key].transpose(axes))

    def _store(self, name: str, array: Array) -> str:
        self.initialisers.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

"""Reads a network without branches (MobileNet-v1) out of a frozen TensorFlow graph, by structure.

Published graphs spell batch normalisation in several ways: one fused node, the multiplications and additions
it stands for, or folded into the convolutions. All of them are linear, and are folded here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats.graph import Array
from converters.formats.tensorflow import FrozenGraph, node_name, read_frozen, tf
from converters.networks.architectures import Padding, pad_widths
from converters.networks.chain import Activation, Chain, Convolution
from harness.errors import ConversionError
from harness.models.spec import Variant

_PASS_THROUGH = ("Identity", "Squeeze", "Reshape", "Softmax")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_POOLS = ("AvgPool", "Mean")
_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_LINEAR = ("Mul", "Add", "AddV2", "BiasAdd", "Sub", *_BATCH_NORMS)
_ACTIVATIONS = {"Relu": Activation.RELU, "Relu6": Activation.RELU6}


def read_chain(path: Path, named: Variant | None) -> Chain:
    """Read the network.

    Raises:
        ConversionError: the graph branches or has an operation that such networks haven't; names the node.
    """
    frozen = read_frozen(path, named)
    nodes = _main_path(frozen, path)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph_def, name="")
        size_px = graph.get_tensor_by_name(f"{frozen.input_name}:0").shape.as_list()[1:3]
        with tf.compat.v1.Session() as session:
            reader = _Reader(path, session, size_px)
            for node, constants in nodes:
                reader.take(node, constants)
    return reader.chain(ends_in_softmax=any(node.op == "Softmax" for node, _ in nodes))


def _main_path(frozen: FrozenGraph, path: Path) -> list[tuple[Any, list[str]]]:
    """The nodes from the input to the output, each with the names of its constant operands."""
    by_name = {node.name: node for node in frozen.graph_def.node}
    depends = _dependents(frozen)
    if len(frozen.output_names) != 1:
        raise ConversionError(f"{path}: one output wanted for PyTorch; it has {len(frozen.output_names)}")
    node, result = by_name[frozen.output_names[0]], []
    while node.name != frozen.input_name:
        operands = [node_name(reference) for reference in node.input if not reference.startswith("^")]
        # The second operand of these is a shape, which may be computed from the data.
        operands = operands[:1] if node.op in _PASS_THROUGH else operands
        previous = [name for name in operands if name in depends]
        if len(previous) != 1:
            raise ConversionError(
                f"{path}: node {node.name} ({node.op}) branches; PyTorch entries are made from MobileNet-v1 "
                "graphs, or from your own TorchScript file (.pt)"
            )
        result.append((node, [name for name in operands if name not in depends]))
        node = by_name[previous[0]]
    return result[::-1]


def _dependents(frozen: FrozenGraph) -> set[str]:
    """Names of the nodes whose value depends on the input."""
    result, size = {frozen.input_name}, 0
    while size != len(result):
        size = len(result)
        for node in frozen.graph_def.node:
            if any(node_name(reference) in result for reference in node.input):
                result.add(node.name)
    return result


class _Reader:
    """Collects convolutions along the path; holds the session that evaluates constants."""

    def __init__(self, path: Path, session: Any, size_px: list[int]) -> None:
        self._path = path
        self._session = session
        self._size_px = size_px
        self._layers: list[Convolution] = []
        self._pooled_at: int | None = None

    def take(self, node: Any, constants: list[str]) -> None:
        """Follow one node."""
        if node.op in _CONVOLUTIONS:
            self._convolve(node, self._values(constants)[0])
        elif node.op in _LINEAR and self._layers:
            self._fold(node, self._values(constants))
        elif node.op in _ACTIVATIONS and self._layers:
            self._layers[-1] = replace(self._layers[-1], activation=_ACTIVATIONS[node.op])
        elif node.op in _POOLS and self._layers and self._pooled_at is None:
            self._check_pool(node)
            self._pooled_at = len(self._layers)
        elif node.op not in _PASS_THROUGH:
            raise self._unknown(node)

    def chain(self, *, ends_in_softmax: bool) -> Chain:
        """What was collected."""
        if self._pooled_at is None or self._pooled_at != len(self._layers) - 1:
            raise ConversionError(
                f"{self._path}: not a MobileNet-v1 graph: {len(self._layers)} convolutions, and not exactly "
                "one of them after the pooling"
            )
        *body, last = self._layers
        if last.weights.shape[:2] != (1, 1) or last.activation != Activation.NONE:
            raise ConversionError(f"{self._path}: {last.name} is not a plain 1x1 classifier")
        return Chain(tuple(body), last.weights[0, 0], last.bias, ends_in_softmax)

    def _values(self, names: list[str]) -> list[Array]:
        return [np.asarray(self._session.run(f"{name}:0")) for name in names]

    def _convolve(self, node: Any, weights: Array) -> None:
        stride, kernel = node.attr["strides"].list.i[1], weights.shape[:2]
        is_plain = node.attr["padding"].s == b"SAME" and set(node.attr["dilations"].list.i) <= {1}
        is_depthwise = node.op == "DepthwiseConv2dNative"
        if not is_plain or (is_depthwise and weights.shape[3] != 1):
            raise self._unknown(node)
        height, width = self._size_px if self._pooled_at is None else (1, 1)
        rows, columns = (
            pad_widths(Padding.SAME, size, side, stride)
            for size, side in zip((height, width), kernel, strict=True)
        )
        self._size_px = [-(-height // stride), -(-width // stride)]
        bias = np.zeros(weights.shape[2 if is_depthwise else 3], np.float32)
        self._layers.append(
            Convolution(node.name, weights, bias, is_depthwise, stride, rows, columns, Activation.NONE)
        )

    def _fold(self, node: Any, values: list[Array]) -> None:
        """Absorb `x * scale + shift` into the last convolution."""
        last = self._layers[-1]
        affine = _affine(node, values)
        if affine is None or last.activation != Activation.NONE:
            raise self._unknown(node)
        scale, shift = (np.broadcast_to(part.squeeze(), last.bias.shape) for part in affine)
        by_channel = scale[:, None] if last.is_depthwise else scale
        self._layers[-1] = replace(
            last,
            weights=(last.weights * by_channel).astype(np.float32),
            bias=(last.bias * scale + shift).astype(np.float32),
        )

    def _check_pool(self, node: Any) -> None:
        """Only the mean over all positions is meant."""
        is_global = node.op == "Mean" or list(node.attr["ksize"].list.i[1:3]) == self._size_px
        if not is_global:
            raise self._unknown(node)

    def _unknown(self, node: Any) -> ConversionError:
        return ConversionError(
            f"{self._path}: node {node.name} ({node.op}) is not understood here; PyTorch entries are made "
            "from MobileNet-v1 graphs, or from your own TorchScript file (.pt)"
        )


def _affine(node: Any, values: list[Array]) -> tuple[Array, Array] | None:
    """(scale, shift) of a linear node in float64, or nothing where it is not of that form."""
    if node.op in _BATCH_NORMS and len(values) == 4 and not node.attr["is_training"].b:
        gamma, beta, mean, variance = (value.astype(np.float64) for value in values)
        scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
        return scale, beta - mean * scale
    if len(values) != 1 or node.op in _BATCH_NORMS:
        return None
    value = values[0].astype(np.float64)
    if node.op == "Mul":
        return value, np.zeros(())
    # In `constant - x` the constant is the first operand; no such network has it.
    return np.ones(()), -value if node.op == "Sub" else value

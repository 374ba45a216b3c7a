"""Reads SSD-ResNet34's weights out of an ONNX file in the form of the published one, by structure.

Only the order of the convolutions and the shapes of their weights are relied on: names differ by exporter,
and batch normalisation may be there or folded into the convolutions. Where it is there, it is folded here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from converters.formats.onnx import load_onnx
from converters.networks.architectures import Layer
from converters.networks.seeds import Floats
from converters.networks.ssd_resnet34.network import LAYERS
from harness.errors import ConversionError


@dataclass(frozen=True)
class Folded:
    """One convolution with everything linear after it."""

    weights: Floats
    """(out, in, h, w)"""
    bias: Floats
    """(out,)"""


Weights = Mapping[str, Folded]
"""By the name of the layer."""


def read_weights(path: Path) -> Weights:
    """Find each layer's weights: the first convolution of their shape that is not an earlier layer's.

    Raises:
        ConversionError: not an ONNX file, or not this network; says which layer is missing.
    """
    model = load_onnx(path)
    reader = _Reader(model.graph, path)
    convolutions = list(reader.convolutions())
    weights = {layer.name: _take(layer, convolutions, path) for layer in LAYERS}
    if convolutions:
        raise ConversionError(
            f"{path}: not an SSD-ResNet34: it has all {len(LAYERS)} convolutions of one and "
            f"{len(convolutions)} more, the first with weights of shape {list(convolutions[0].weights.shape)}"
        )
    return weights


def _take(layer: Layer, convolutions: list[Folded], path: Path) -> Folded:
    for index, found in enumerate(convolutions):
        if found.weights.shape == layer.shape:
            return convolutions.pop(index)
    raise ConversionError(
        f"{path}: not an SSD-ResNet34: no convolution is left for layer {layer.name}, whose weights have "
        f"shape {list(layer.shape)}"
    )


class _Reader:
    """A graph's convolutions, with what they are and what follows."""

    def __init__(self, graph: Any, path: Path) -> None:
        """Take the graph, and the path for messages."""
        self._path = path
        self._nodes = graph.node
        self._producers = {name: node for node in graph.node for name in node.output}
        self._initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self._normalisations = {
            node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"
        }

    def convolutions(self) -> Iterator[Folded]:
        """In the graph's order, which the format wants to be one of execution."""
        for node in self._nodes:
            if node.op_type == "Conv":
                yield self._fold(node)

    def _fold(self, node: Any) -> Folded:
        weights = self._array(node.input[1])
        bias = self._array(node.input[2]) if len(node.input) > 2 else None
        if normalisation := self._normalisations.get(node.output[0]):
            gamma, beta, mean, variance = (self._array(name) for name in normalisation.input[1:5])
            scale = gamma / np.sqrt(variance + _epsilon(normalisation))
            weights = weights * scale[:, None, None, None]
            bias = beta + ((0 if bias is None else bias) - mean) * scale
        if bias is None:
            raise ConversionError(
                f"{self._path}: the convolution that makes {node.output[0]!r} has neither a bias nor a "
                "BatchNormalization, as all of SSD-ResNet34's have"
            )
        return Folded(weights.astype(np.float32), bias.astype(np.float32))

    def _array(self, name: str) -> NDArray[np.float64]:
        """A constant, wherever it is kept."""
        if name in self._initialisers:
            return _float64(self._initialisers[name])
        node = self._producers.get(name)
        if node is not None and node.op_type == "Identity":
            return self._array(node.input[0])
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            return _float64(node.attribute[0].t)
        raise ConversionError(f"{self._path}: weights {name!r} are computed; stored ones are wanted")


def _float64(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(numpy_helper.to_array(tensor), np.float64)


def _epsilon(normalisation: Any) -> float:
    stated = [attribute.f for attribute in normalisation.attribute if attribute.name == "epsilon"]
    return float(stated[0]) if stated else 1e-5  # ONNX's default

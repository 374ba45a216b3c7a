"""LiteRT's own operation for decoding and NMS, appended to a TFLite file that ends in an SSD's predictors.

TensorFlow's converter has no counterpart for the NMS that the TensorFlow graph ends in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from flatbuffers import flexbuffers
from numpy.typing import NDArray

from harness.models.declared.ssd_mobilenet import TFLITE_DETECTION

IDLE_CLASSES = 128
"""Classes in front of the first real one, with scores of 0.

Run by n threads, the operation passes over class n (`next_col` of LiteRT's detection_postprocess.cc starts at
n and is incremented before its first use), and whatever is of that class is not found. So that it is none of
ours, there are more idle classes than anyone has threads.
"""


IDLE_TENSOR = "idle classes"
"""By this name our backend knows that the threads do no harm."""


@dataclass(frozen=True)
class DetectionOptions:
    """What the operation is to do."""

    max_detections: int
    """Of one class, and of all together."""
    score_threshold: float
    iou_threshold: float
    scales: tuple[float, float, float, float]
    """What the predictors' y, x, height and width are to be divided by."""


def append_detection(
    content: bytes, anchors: NDArray[np.float32], options: DetectionOptions, names: Sequence[str]
) -> bytes:
    """Let a file end in detections: boxes within the image, classes from 0, scores, count.

    Args:
        content: a TFLite file whose outputs are encodings (1, anchors, 4) and scores (1, anchors, classes),
            the first `IDLE_CLASSES` of them idle, and no background.
        anchors: (anchors, 4): centre y, centre x, height, width.
        options: of the operation.
        names: of the four outputs.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    encodings, scores = graph.outputs
    classes = int(graph.tensors[scores].shape[2])
    slots = options.max_detections
    shapes = ((1, slots, 4), (1, slots), (1, slots), (1,))
    outputs = [_tensor(model, name, shape) for name, shape in zip(names, shapes, strict=True)]
    unclipped = _tensor(model, f"{names[0]}/unclipped", shapes[0])
    shifted = _tensor(model, f"{names[1]}/shifted", shapes[1])
    detect = schema.OperatorT()
    detect.opcodeIndex = _opcode(model, schema.BuiltinOperator.CUSTOM, TFLITE_DETECTION)
    detect.inputs = [encodings, scores, _constant(model, "anchors", anchors)]
    detect.outputs = [unclipped, shifted, *outputs[2:]]
    detect.customOptions = _custom_options(options, classes)
    graph.operators += [detect, _clip(model, unclipped, outputs[0]), _shift_back(model, shifted, outputs[1])]
    graph.outputs = outputs
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _clip(model: Any, unclipped: int, boxes: int) -> Any:
    """End boxes where the image ends, as TensorFlow's NMS does and LiteRT's does not."""
    clip = schema.OperatorT()
    clip.opcodeIndex = _opcode(model, schema.BuiltinOperator.RELU_0_TO_1)
    clip.inputs, clip.outputs = [unclipped], [boxes]
    return clip


def _shift_back(model: Any, shifted: int, classes: int) -> Any:
    """Count classes from the first one that isn't idle; slots without a detection keep class 0."""
    add = schema.OperatorT()
    add.opcodeIndex = _opcode(model, schema.BuiltinOperator.ADD)
    add.builtinOptionsType = schema.BuiltinOptions.AddOptions
    add.builtinOptions = schema.AddOptionsT()
    add.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    add.inputs = [shifted, _constant(model, IDLE_TENSOR, np.array([-IDLE_CLASSES], np.float32))]
    add.outputs = [classes]
    return add


def _constant(model: Any, name: str, value: NDArray[np.float32]) -> int:
    """Add a tensor with a value; return its index."""
    return _tensor(model, name, value.shape, np.ascontiguousarray(value, "<f4").tobytes())


def _tensor(model: Any, name: str, shape: tuple[int, ...], data: bytes = b"") -> int:
    """Add a float32 tensor, constant if it has data; return its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), schema.TensorType.FLOAT32
    # Buffer 0 is the empty one, by the format's convention.
    tensor.buffer = 0
    if data:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    (graph,) = model.subgraphs
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _opcode(model: Any, builtin: int, custom: str = "") -> int:
    """Add an operation to those that the file uses; return its index."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, 1
    # Where readers older than schema version 3a look; larger codes than fit there have this one in it.
    placeholder = schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
    code.deprecatedBuiltinCode = min(builtin, placeholder)
    code.customCode = custom.encode() if custom else None
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _custom_options(options: DetectionOptions, classes: int) -> NDArray[np.uint8]:
    """A FlexBuffer, with the names that LiteRT's detection_postprocess.cc reads."""
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("max_detections", options.max_detections)
        builder.Int("max_classes_per_detection", 1)
        builder.Int("detections_per_class", options.max_detections)
        builder.Bool("use_regular_nms", True)
        builder.Float("nms_score_threshold", options.score_threshold)
        builder.Float("nms_iou_threshold", options.iou_threshold)
        builder.Int("num_classes", classes)
        for name, scale in zip(("y_scale", "x_scale", "h_scale", "w_scale"), options.scales, strict=True):
            builder.Float(name, scale)
    return np.frombuffer(bytes(builder.Finish()), np.uint8)

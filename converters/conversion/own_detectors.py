"""Which of a user's detector's outputs holds what: told by their names, else by their shapes and values."""

from collections.abc import Mapping
from dataclasses import replace

from converters.formats.graph import Array, Graph
from harness.errors import ConversionError
from harness.models.declared.ssd_mobilenet import TFLITE_DETECTION
from harness.models.spec import BoxOrder, Detection, TensorSpec

_NAMES: Mapping[str, tuple[str, ...]] = {
    "boxes": ("detection_boxes", "detection_bboxes", "bboxes", "boxes", TFLITE_DETECTION),
    "classes": ("detection_classes", "classes", "labels", f"{TFLITE_DETECTION}:1"),
    "scores": ("detection_scores", "scores", f"{TFLITE_DETECTION}:2"),
    "count": ("num_detections", f"{TFLITE_DETECTION}:3"),
}
"""The TF Object Detection API's and MLPerf's, PyTorch's as the MLPerf reference exports them, LiteRT's."""

_XYXY_NAMES = ("bboxes", "boxes")
"""What exports from PyTorch call boxes whose first number is x."""


def read_detection(graph: Graph, base: Detection, inputs: Array) -> Detection:
    """Tell the outputs of a detector apart.

    Args:
        graph: the file, opened.
        base: of the model's own variant; says what cannot be seen: class numbers, threshold.
        inputs: a few of its samples; run where names and shapes do not tell classes from scores.

    Raises:
        ConversionError: these are not the outputs of a detector.
    """
    outputs = {output.name: output for output in graph.outputs}
    found = _by_name(graph) or _by_shape(graph, inputs)
    if not _fits(found, outputs):
        listing = ", ".join(f"{output.name} {['n', *output.shape]}" for output in graph.outputs)
        raise ConversionError(
            f"{graph.path}: not a detector: outputs of boxes [n, m, 4], scores [n, m], classes [n, m] and "
            f"perhaps a count [n] wanted; it has {listing.replace(chr(39), '')}"
        )
    boxes = found["boxes"]
    is_litert = boxes == TFLITE_DETECTION
    order = base.box_order
    if is_litert or boxes.startswith("detection_"):
        order = BoxOrder.YXYX
    elif boxes.removesuffix(":0") in _XYXY_NAMES:
        order = BoxOrder.XYXY
    return replace(
        base,
        boxes=boxes,
        scores=found["scores"],
        classes=found["classes"],
        count=found.get("count", ""),
        box_order=order,
        # LiteRT's operation does not count the background.
        class_offset=1 if is_litert else base.class_offset,
    )


def output_shapes(graph: Graph, inputs: Array) -> tuple[TensorSpec, ...]:
    """The outputs with -1 for the sizes that the file leaves open, or that differ from image to image."""
    answers = [graph.run(inputs[index : index + 1]) for index in range(len(inputs))]
    open_axes = graph.open_axes or ((),) * len(graph.outputs)
    result = []
    for index, (output, axes) in enumerate(zip(graph.outputs, open_axes, strict=True)):
        seen = [output.shape, *(answer[index].shape[1:] for answer in answers)]
        shape = tuple(
            -1 if axis in axes or len({sizes[axis] for sizes in seen}) > 1 else size
            for axis, size in enumerate(output.shape)
        )
        result.append(replace(output, shape=shape))
    return tuple(result)


def _by_name(graph: Graph) -> dict[str, str]:
    """Role -> output, if names tell all of boxes, classes and scores."""
    bare = {output.name.removesuffix(":0"): output.name for output in graph.outputs}
    found = {role: next((bare[name] for name in names if name in bare), "") for role, names in _NAMES.items()}
    return {role: name for role, name in found.items() if name} if _has_all(found) else {}


def _by_shape(graph: Graph, inputs: Array) -> dict[str, str]:
    """Role -> output, as far as shapes, types and values tell."""
    boxes = [output.name for output in graph.outputs if len(output.shape) == 2 and output.shape[1] == 4]
    counts = [output.name for output in graph.outputs if not output.shape]
    lists = [output for output in graph.outputs if len(output.shape) == 1]
    if len(boxes) != 1 or len(lists) != 2 or len(counts) > 1:
        return {}
    classes = [output.name for output in lists if output.dtype.value.startswith("int")]
    if not classes:
        # As floats both: classes are whole numbers, scores are not.
        answers = dict(zip((output.name for output in graph.outputs), graph.run(inputs[:1]), strict=True))
        classes = [output.name for output in lists if (answers[output.name] % 1 == 0).all()]
    scores = [output.name for output in lists if output.name not in classes]
    if len(classes) != 1 or len(scores) != 1:
        return {}
    return {"boxes": boxes[0], "classes": classes[0], "scores": scores[0]} | (
        {"count": counts[0]} if counts else {}
    )


def _fits(found: Mapping[str, str], outputs: Mapping[str, TensorSpec]) -> bool:
    """Whether all roles are taken, by outputs of the shapes that these have."""
    if not _has_all(found):
        return False
    shapes = {role: outputs[name].shape for role, name in found.items()}
    slots = shapes["scores"]
    is_float = all(outputs[found[role]].dtype == "float32" for role in ("boxes", "scores"))
    return (
        is_float
        and len(slots) == 1
        and shapes["boxes"] == (*slots, 4)
        and shapes["classes"] == slots
        and shapes.get("count", ()) == ()
    )


def _has_all(found: Mapping[str, str]) -> bool:
    return all(found.get(role) for role in ("boxes", "classes", "scores"))

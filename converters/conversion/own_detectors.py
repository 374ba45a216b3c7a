"""Which of a user's detector's outputs holds what: told by their names, else by their shapes and values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from converters.formats.graph import Array, Graph
from harness.errors import ConversionError
from harness.models.declared.ssd_mobilenet import TFLITE_DETECTION
from harness.models.spec import PIXELS, BoxOrder, Detection, Numbering, TensorSpec

_NAMES: Mapping[str, tuple[str, ...]] = {
    "boxes": ("detection_boxes", "detection_bboxes", "bboxes", "boxes", TFLITE_DETECTION),
    "classes": ("detection_classes", "classes", "labels", f"{TFLITE_DETECTION}:1"),
    "scores": ("detection_scores", "scores", f"{TFLITE_DETECTION}:2"),
    "count": ("num_detections", f"{TFLITE_DETECTION}:3"),
}
"""The TF Object Detection API's and MLPerf's, PyTorch's as the MLPerf reference exports them, LiteRT's."""

_XYXY_NAMES = ("bboxes", "boxes")
"""What exports from PyTorch call boxes whose first number is x."""

LARGEST_SHARE = 2.0
"""Boxes may reach beyond the image; few reach so far, and of boxes in pixels nearly all do."""
_INVERTED = 0.25
"""Share of boxes that end before they begin; of corners none do, of a place and a size about half."""
_FROM_1 = (Numbering.COCO, Numbering.FROM_1)


def read_detection(
    graph: Graph,
    base: Detection,
    inputs: Array,
    *,
    numbering: Numbering | None = None,
    box_form: str = "",
    chosen: Sequence[str] = (),
) -> Detection:
    """Tell the outputs of a detector apart, and what their numbers are.

    Args:
        graph: the file, opened.
        base: of the model's own variant; says what cannot be seen: class numbers.
        inputs: a few of its samples, whose answers tell what names and shapes do not.
        numbering: what its class numbers mean, where the user says it.
        box_form: of `BOX_FORMS`, likewise.
        chosen: names of the outputs to look at, likewise; all if empty.

    Raises:
        ConversionError: these are not the outputs of a detector, or can be read in more than one way.
    """
    detection = _by_outputs(graph, base, inputs, chosen)
    boxes, classes = _answered(graph, detection, inputs)
    if numbering:
        detection = detection.numbered(numbering)
    elif detection.numbering in _FROM_1 and (classes == 0).any():
        raise ConversionError(
            f"{graph.path}: answers class 0 on test images, so it counts from 0: say --classes "
            f"{Numbering.FROM_0} if its class {Numbering.FROM_0.meaning}, --classes {Numbering.COCO_LESS_1} "
            f"if {Numbering.COCO_LESS_1.meaning}, or --classes {Numbering.COCO} if 0 is an id"
        )
    return detection.boxed(box_form or _box_form(graph, detection, boxes))


def _box_form(graph: Graph, detection: Detection, boxes: Array) -> str:
    """What the numbers of these boxes are, (n, 4), as far as they tell."""
    if not len(boxes):
        return detection.box_form
    if (boxes[:, 2:] < boxes[:, :2]).any(axis=1).mean() > _INVERTED:
        raise ConversionError(
            f"{graph.path}: its boxes on test images are not corners, since many end before they begin: say "
            f"--boxes {BoxOrder.XYWH} (left, top, width, height) or --boxes {BoxOrder.CXCYWH} (centre, "
            f"width, height), with {PIXELS} behind it where they are in pixels of its input"
        )
    are_pixels = np.median(np.abs(boxes).max(axis=1)) > LARGEST_SHARE
    return f"{detection.box_order}{PIXELS if are_pixels else ''}"


def _answered(graph: Graph, detection: Detection, inputs: Array) -> tuple[Array, Array]:
    """Boxes (n, 4) and classes (n,) of all that is found in these images, as they are answered."""
    boxes, classes = [], []
    for index in range(len(inputs)):
        answers = graph.run(inputs[index : index + 1])
        answer = dict(zip((output.name for output in graph.outputs), answers, strict=True))
        scores = answer[detection.scores][0]
        is_found = scores >= max(detection.score_threshold, np.finfo(np.float32).tiny)
        if detection.count:
            is_found &= np.arange(len(scores)) < answer[detection.count].ravel()[0]
        boxes.append(answer[detection.boxes][0][is_found])
        classes.append(answer[detection.classes][0][is_found])
    return np.concatenate(boxes), np.concatenate(classes)


def _by_outputs(graph: Graph, base: Detection, inputs: Array, chosen: Sequence[str]) -> Detection:
    """What names, shapes and types tell.

    Raises:
        ConversionError: these are not the outputs of a detector.
    """
    wanted = [name.removesuffix(":0") for name in chosen]
    outputs = {
        output.name: output
        for output in graph.outputs
        if not wanted or output.name.removesuffix(":0") in wanted
    }
    found = _by_name(outputs) or _by_shape(graph, outputs, inputs)
    if not _fits(found, outputs):
        listing = ", ".join(f"{output.name} {['n', *output.shape]}" for output in graph.outputs)
        hint = "; --outputs NAME,NAME,NAME chooses them" if len(outputs) > 3 else ""
        raise ConversionError(
            f"{graph.path}: not a detector: outputs of boxes [n, m, 4], scores [n, m], classes [n, m] and "
            f"perhaps a count [n] wanted; it has {listing.replace(chr(39), '')}{hint}"
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
        # What it answers counts: where it drops some, it has done so itself.
        score_threshold=0.0,
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


def _by_name(outputs: Iterable[str]) -> dict[str, str]:
    """Role -> output, if names tell all of boxes, classes and scores."""
    bare = {name.removesuffix(":0"): name for name in outputs}
    found = {role: next((bare[name] for name in names if name in bare), "") for role, names in _NAMES.items()}
    return {role: name for role, name in found.items() if name} if _has_all(found) else {}


def _by_shape(graph: Graph, outputs: Mapping[str, TensorSpec], inputs: Array) -> dict[str, str]:
    """Role -> output, as far as shapes, types and values tell."""
    boxes = [output for output in outputs.values() if len(output.shape) == 2 and output.shape[1] == 4]
    if len(boxes) != 1:
        return {}
    lists = [output for output in outputs.values() if output.shape == boxes[0].shape[:1]]
    counts = [name for name, output in outputs.items() if output.shape in ((), (1,)) and output not in lists]
    if len(lists) != 2 or len(counts) > 1:
        return {}
    classes = [output.name for output in lists if output.dtype.value.startswith("int")]
    if not classes:
        # As floats both: classes are whole numbers; scores are not, but for the zeros of what is not found.
        values = {output.name: _values(graph, output.name, inputs) for output in lists}
        whole = [name for name, found in values.items() if (found % 1 == 0).all()]
        classes = [name for name in whole if values[name].any()] or whole
    scores = [output.name for output in lists if output.name not in classes]
    if len(classes) != 1 or len(scores) != 1:
        return {}
    return {"boxes": boxes[0].name, "classes": classes[0], "scores": scores[0]} | (
        {"count": counts[0]} if counts else {}
    )


def _values(graph: Graph, name: str, inputs: Array) -> Array:
    """All numbers of an output, of all these images."""
    index = [output.name for output in graph.outputs].index(name)
    return np.concatenate([graph.run(inputs[row : row + 1])[index].ravel() for row in range(len(inputs))])


def _fits(found: Mapping[str, str], outputs: Mapping[str, TensorSpec]) -> bool:
    """Whether all roles are taken, by outputs of the shapes that these have."""
    if not _has_all(found):
        return False
    shapes = {role: outputs[name].shape for role, name in found.items()}
    slots = shapes["scores"]
    is_float = not any(outputs[found[role]].dtype.is_whole for role in ("boxes", "scores"))
    return (
        is_float
        and len(slots) == 1
        and shapes["boxes"] == (*slots, 4)
        and shapes["classes"] == slots
        and shapes.get("count", ()) in ((), (1,))
    )


def _has_all(found: Mapping[str, str]) -> bool:
    return all(found.get(role) for role in ("boxes", "classes", "scores"))

"""A user's own file of a model's task: what it takes and gives is read from the file."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.conversion import own_detectors
from converters.conversion.parity import classes
from converters.formats.graph import Array, Graph
from converters.inputs import fixed_inputs
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.recipes import COCO_300_PT, RECIPES, fit
from harness.models.spec import DType, Preprocess, TensorSpec, Variant

_LABEL_OFFSETS = {1001: -1, 1000: 0}
"""By number of classes: ImageNet with and without a background class."""

_SAME_DETECTION = 1e-2
"""Largest difference between scores or box corners of an image run alone and in a batch."""


def entry_name(path: Path, platform: Platform) -> str:
    """Name an entry after its file; never as one of the named models'."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model"
    name = f"{stem}_{platform}"
    return f"{stem}-file_{platform}" if is_reserved(name) else name


def is_reserved(entry: str) -> bool:
    """Whether an entry's name belongs to a named model."""
    return any(entry == spec.entry_name(platform) for spec in MODELS.values() for platform in spec.variants)


def variant_of(graph: Graph, base: Variant, recipe: str) -> Variant:
    """Describe a file that is to be served.

    Args:
        graph: the file, opened.
        base: the model's own variant; says what the file can't: preprocessing, limits.
        recipe: name of the preprocessing, or empty for the model's own.

    Raises:
        ConversionError: the file is of another task.
    """
    if base.detection:
        return _detector(graph, base, recipe)
    outputs = classifier_outputs(graph)
    preprocess = _preprocess(graph, base, recipe)
    scores = [output.shape[0] for output in outputs if output.shape]
    inputs = fixed_inputs(preprocess, 2)
    return Variant(
        platform=base.platform,
        input=graph.input,
        outputs=outputs,
        preprocess=preprocess,
        label_offset=_LABEL_OFFSETS.get(scores[0], base.label_offset) if scores else base.label_offset,
        max_batch_size=base.max_batch_size if _takes_batches(graph, inputs, _is_same_class) else 1,
        source=base.source,
        tolerance=base.tolerance * max(1.0, _peak(graph, inputs)),
    )


def check_task(graph: Graph, base: Variant) -> None:
    """See that a file is of its model's task: a classifier or a detector.

    Raises:
        ConversionError: it is not.
    """
    if base.detection:
        own_detectors.read_detection(graph, base.detection, fixed_inputs(_preprocess(graph, base, ""), 1))
    else:
        classifier_outputs(graph)


def _preprocess(graph: Graph, base: Variant, recipe: str) -> Preprocess:
    """The recipe, with the axis order, size and type of the file's input.

    Raises:
        ConversionError: the input is of a type that no image has, or the recipe does not make such numbers.
    """
    if graph.input.dtype not in (DType.FP32, DType.UINT8):
        raise ConversionError(f"{graph.path}: images of {graph.input.dtype} are not supported")
    layout = graph.layout
    height, width = graph.input.shape[:2] if layout == "NHWC" else graph.input.shape[1:]
    chosen = RECIPES[recipe] if recipe else base.preprocess
    if graph.input.dtype == DType.FP32 and chosen.dtype == DType.UINT8:
        if recipe:
            raise ConversionError(
                f"{graph.path}: takes {graph.input.dtype}, and {recipe} makes bytes; "
                f"{COCO_300_PT.name} makes numbers from -1 to 1"
            )
        # Exports of the same network that leave the normalisation to the client.
        chosen = COCO_300_PT
    return fit(
        chosen,
        layout=layout,
        size_px=(height, width),
        dtype=graph.input.dtype,
    )


def _detector(graph: Graph, base: Variant, recipe: str) -> Variant:
    """Describe a detector that is to be served."""
    assert base.detection is not None
    preprocess = _preprocess(graph, base, recipe)
    inputs = fixed_inputs(preprocess, 2)
    detection = own_detectors.read_detection(graph, base.detection, inputs)
    read = (detection.boxes, detection.scores, detection.classes, detection.count)
    return Variant(
        platform=base.platform,
        input=graph.input,
        outputs=tuple(
            replace(output, is_requested=output.name in read)
            for output in own_detectors.output_shapes(graph, inputs)
        ),
        preprocess=preprocess,
        max_batch_size=_detector_batch(graph, base, inputs, (detection.boxes, detection.scores)),
        source=base.source,
        tolerance=base.tolerance,
        detection=detection,
    )


def _detector_batch(graph: Graph, base: Variant, inputs: Array, compared: tuple[str, str]) -> int:
    """`max_batch_size` of a detector, whose boxes and scores are compared."""
    if _is_fixed(graph) and base.platform.facts.refuses_other_batches:
        return 0

    def is_same(output: TensorSpec, together: Array, apart: Array) -> bool:
        return output.name not in compared or np.allclose(together, apart, rtol=0, atol=_SAME_DETECTION)

    return max(base.max_batch_size, 1) if _takes_batches(graph, inputs, is_same) else 1


def classifier_outputs(graph: Graph) -> tuple[TensorSpec, ...]:
    """The outputs, with the one to request marked: the arg-max if there is one, else the scores.

    Raises:
        ConversionError: these are not the outputs of a classifier.
    """
    labels = [output for output in graph.outputs if not output.shape and output.dtype.value.startswith("int")]
    scores = [output for output in graph.outputs if len(output.shape) == 1 and output.shape[0] > 1]
    if len(labels) > 1 or len(scores) > 1 or not graph.outputs or len(labels + scores) != len(graph.outputs):
        found = ", ".join(f"{output.name} {['n', *output.shape]}" for output in graph.outputs)
        raise ConversionError(
            f"{graph.path}: not an image classifier: one output of scores [n, classes] and/or one of classes "
            f"[n] wanted; it has {found.replace(chr(39), '')}"
        )
    requested = (labels or scores)[0].name
    return tuple(
        TensorSpec(output.name, output.dtype, output.shape, is_requested=output.name == requested)
        for output in graph.outputs
    )


def _is_fixed(graph: Graph) -> bool:
    """Whether the file insists on one sample at a time.

    Raises:
        ConversionError: it insists on another number.
    """
    if graph.fixed_batch > 1:
        raise ConversionError(
            f"{graph.path}: its batch size is fixed at {graph.fixed_batch}; export it with batch size 1, or "
            "better with a free batch axis"
        )
    return graph.fixed_batch == 1


def _takes_batches(graph: Graph, inputs: Array, is_same: Callable[[TensorSpec, Array, Array], bool]) -> bool:
    """Whether two samples at once give what they give one by one; `is_same` compares one output of one."""
    if _is_fixed(graph):
        return False
    single = [graph.run(inputs[index : index + 1]) for index in range(2)]
    try:
        double = graph.run(inputs)
    except Exception:  # noqa: BLE001 - each framework has its own, often bare RuntimeError
        return False
    return all(
        together[index : index + 1].shape == apart[index_of].shape
        and is_same(output, together[index : index + 1], apart[index_of])
        for index, apart in enumerate(single)
        for index_of, (output, together) in enumerate(zip(graph.outputs, double, strict=True))
    )


def _is_same_class(output: TensorSpec, together: Array, apart: Array) -> bool:
    return bool((classes(together) == classes(apart)).all())


def _peak(graph: Graph, inputs: Array) -> float:
    """Largest floating-point answer: raw scores may be in the tens, and their rounding errors with them."""
    answers = [answer for answer in graph.run(inputs[:1]) if np.issubdtype(answer.dtype, np.floating)]
    return max((float(np.abs(answer).max()) for answer in answers), default=0.0)

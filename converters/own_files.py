"""A user's own file of a model's task: what it takes and gives is read from the file."""

import re
from pathlib import Path

import numpy as np

from converters.graph import Array, Graph
from converters.parity import classes
from converters.samples import fixed_inputs
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.recipes import RECIPES, fit
from harness.models.spec import DType, Platform, TensorSpec, Variant

_LABEL_OFFSETS = {1001: -1, 1000: 0}
"""By number of classes: ImageNet with and without a background class."""


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
    if graph.input.dtype not in (DType.FP32, DType.UINT8):
        raise ConversionError(f"{graph.path}: images of {graph.input.dtype} are not supported")
    layout = graph.layout
    height, width = graph.input.shape[:2] if layout == "NHWC" else graph.input.shape[1:]
    preprocess = fit(
        RECIPES[recipe] if recipe else base.preprocess,
        layout=layout,
        size_px=(height, width),
        dtype=graph.input.dtype,
    )
    outputs = classifier_outputs(graph)
    scores = [output.shape[0] for output in outputs if output.shape]
    inputs = fixed_inputs(preprocess, 2)
    return Variant(
        platform=base.platform,
        input=graph.input,
        outputs=outputs,
        preprocess=preprocess,
        label_offset=_LABEL_OFFSETS.get(scores[0], base.label_offset) if scores else base.label_offset,
        max_batch_size=base.max_batch_size if _takes_batches(graph, inputs) else 1,
        source=base.source,
        tolerance=base.tolerance * max(1.0, _peak(graph, inputs)),
    )


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


def _takes_batches(graph: Graph, inputs: Array) -> bool:
    """Whether two samples at once give what they give one by one."""
    if graph.fixed_batch == 1:
        return False
    if graph.fixed_batch:
        raise ConversionError(
            f"{graph.path}: its batch size is fixed at {graph.fixed_batch}; export it with batch size 1, or "
            "better with a free batch axis"
        )
    single = [graph.run(inputs[index : index + 1]) for index in range(2)]
    try:
        double = graph.run(inputs)
    except Exception:  # noqa: BLE001 - each framework has its own, often bare RuntimeError
        return False
    for index, together in enumerate(double):
        apart = np.concatenate([answers[index] for answers in single])
        if together.shape != apart.shape or not (classes(together) == classes(apart)).all():
            return False
    return True


def _peak(graph: Graph, inputs: Array) -> float:
    """Largest floating-point answer: raw scores may be in the tens, and their rounding errors with them."""
    answers = [answer for answer in graph.run(inputs[:1]) if np.issubdtype(answer.dtype, np.floating)]
    return max((float(np.abs(answer).max()) for answer in answers), default=0.0)

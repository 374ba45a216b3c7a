"""A user's own file of a model's task: what it takes and gives is read from the file."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.conversion import own_detectors
from converters.conversion.parity import classes
from converters.formats.graph import Array, Graph
from converters.inputs import fixed_inputs
from harness.answers.precision import allowed_difference
from harness.data.preprocess import apply
from harness.errors import ConversionError
from harness.machine.paths import absolute
from harness.models import MODELS, own_recipes
from harness.models.platforms import Platform
from harness.models.recipes import COCO_300_PT, fit
from harness.models.spec import (
    Detection,
    DType,
    Layout,
    Numbering,
    Preprocess,
    Quantization,
    Resize,
    Task,
    TensorSpec,
    Variant,
)

_WITH_BACKGROUND = 1001
"""Classes of a network that counts ImageNet's from 1, as TensorFlow's do: class 0 is none of them."""

_LONGEST_STEM = 160
"""Of a file's name in its entry's: files and folders that are called after that have 255 letters at most."""

_SAME_DETECTION = 1e-2
"""Largest difference between scores or box corners of an image run alone and in a batch."""


@dataclass(frozen=True)
class Said:
    """What a user says of a file of their own, where the file itself leaves it open."""

    preprocess: str = ""
    """As `harness.models.own_recipes` reads it; empty for the model's own."""
    label_offset: int | None = None
    """Classifiers: what is added to a class to get its label."""
    outputs: tuple[str, ...] = ()
    """Which to score."""
    numbering: Numbering | None = None
    """Detectors: what class numbers mean."""
    box_form: str = ""
    """Detectors: what the numbers of boxes are, of `BOX_FORMS`."""

    def size_px(self, task: Task) -> tuple[int, int] | None:
        """(height, width) of images where the file leaves it open; None where that is not said either."""
        return own_recipes.size_of(self.preprocess, task)

    def layout(self, task: Task) -> Layout | None:
        """Axis order of images where the file leaves it open; None where that is not said either."""
        text = self.preprocess
        return own_recipes.parse(text, task).layout if own_recipes.asks_for_layout(text) else None


NOTHING_SAID = Said()


def entry_name(path: Path, platform: Platform) -> str:
    """Name an entry after its file; never as one of the named models'."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model"
    if len(stem) > _LONGEST_STEM:
        stem = f"{stem[:_LONGEST_STEM]}-{_mark(path)}"
    name = f"{stem}_{platform}"
    return f"{stem}-file_{platform}" if is_reserved(name) else name


def entry_name_apart(path: Path, platform: Platform, options: str = "") -> str:
    """Name an entry after a file where the plain name is taken: by its path, and by its options if given."""
    return f"{entry_name(path, platform).removesuffix(f'_{platform}')}-{_mark(path, options)}_{platform}"


def _mark(path: Path, options: str = "") -> str:
    return hashlib.sha256(os.fsencode(absolute(path)) + options.encode()).hexdigest()[:6]


def is_reserved(entry: str) -> bool:
    """Whether an entry's name belongs to a named model."""
    return any(entry == spec.entry_name(platform) for spec in MODELS.values() for platform in spec.variants)


def variant_of(graph: Graph, base: Variant, said: Said = NOTHING_SAID) -> Variant:
    """Describe a file that is to be served.

    Args:
        graph: the file, opened.
        base: the model's own variant; says what the file can't: preprocessing, limits.
        said: what the user says of it.

    Raises:
        ConversionError: the file is of another task, or can be read in more than one way.
    """
    if base.detection:
        return _detector(graph, base, said)
    outputs = classifier_outputs(graph, said.outputs)
    preprocess = _preprocess(graph, base, said.preprocess)
    inputs = fixed_inputs(preprocess, 2)
    return Variant(
        platform=base.platform,
        input=graph.input,
        outputs=outputs,
        preprocess=preprocess,
        label_offset=_label_offset(graph, outputs, said),
        max_batch_size=base.max_batch_size if _takes_batches(graph, inputs, _is_same_class) else 1,
        source=base.source,
        tolerance=_tolerance(graph, inputs, base.tolerance),
    )


def _label_offset(graph: Graph, outputs: tuple[TensorSpec, ...], said: Said) -> int:
    """What is added to the class to get the label.

    Raises:
        ConversionError: nobody can tell: the file only names the class that won.
    """
    if said.label_offset is not None:
        return said.label_offset
    scores = next((output for output in outputs if output.is_scores), None)
    if scores is None:
        raise ConversionError(
            f"{graph.path}: its only output names the class that won, not how many there are: say with "
            "--label-offset what to add to get its label: 0, or -1 where class 0 is a background"
        )
    return -1 if scores.numbers == _WITH_BACKGROUND else 0


def check_task(graph: Graph, base: Variant, said: Said = NOTHING_SAID) -> None:
    """See that a file is of its model's task, a classifier or a detector, and takes samples one by one.

    Raises:
        ConversionError: it is not.
    """
    _is_fixed(graph)
    if base.detection:
        _detection(graph, base.detection, fixed_inputs(_preprocess(graph, base, said.preprocess), 2), said)
    else:
        classifier_outputs(graph, said.outputs)


def _preprocess(graph: Graph, base: Variant, text: str) -> Preprocess:
    """The recipe, with the axis order, size and type of the file's input.

    Raises:
        ConversionError: the input is of a type that no image has, or the recipe does not make such numbers.
    """
    dtype, layout = graph.input.dtype, graph.layout
    is_quantized = graph.quantization is not None
    if dtype in (DType.INT64, DType.INT32) or (dtype == DType.INT8 and not is_quantized):
        scale = " without a scale" if dtype == DType.INT8 else ""
        raise ConversionError(f"{graph.path}: images of {dtype}{scale} are not supported")
    task = Task.DETECTION if base.detection else Task.CLASSIFICATION
    chosen = own_recipes.parse(text, task) if text else base.preprocess
    height, width = graph.size_px
    if own_recipes.asks_for_size(text) and chosen.size_px != graph.size_px:
        raise ConversionError(f"{graph.path}: takes images of {height}x{width}, not as {text!r} says")
    if own_recipes.asks_for_layout(text) and chosen.layout != layout:
        raise ConversionError(f"{graph.path}: takes images as {layout}, not as {text!r} says")

    def fitted(recipe: Preprocess, quantization: Quantization | None = None) -> Preprocess:
        return fit(recipe, layout=layout, size_px=graph.size_px, dtype=dtype, quantization=quantization)

    if dtype.is_whole and not is_quantized:
        if chosen.name == own_recipes.OWN and chosen.steps:
            raise ConversionError(
                f"{graph.path}: takes bytes as they are: leave scale, mean and std out of {text!r}"
            )
        return fitted(chosen)
    makes_bytes = chosen.dtype == DType.UINT8
    # Exports of the same network that leave the normalisation to the client.
    arithmetic = fitted(COCO_300_PT if makes_bytes else chosen, graph.quantization)
    if is_quantized and _takes_pixels(arithmetic):
        return fitted(chosen)
    if makes_bytes and text:
        raise ConversionError(
            f"{graph.path}: takes {dtype}, and {text} makes bytes; "
            f"{COCO_300_PT.name} makes numbers from -1 to 1"
        )
    return arithmetic


def _takes_pixels(recipe: Preprocess) -> bool:
    """Whether a quantised input stores each pixel as it is, or its neighbour, as the published networks' do.

    Then it gets pixels as they are, which is what such a network was trained with.
    """
    if recipe.dtype != DType.UINT8:
        return False
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    plain = replace(recipe, resize=Resize.ASPECT_LINEAR, size_px=(16, 16), crop=1.0, layout=Layout.NHWC)
    return int(np.abs(apply(every, plain).astype(np.int64) - every).max()) <= 1


def _detector(graph: Graph, base: Variant, said: Said) -> Variant:
    """Describe a detector that is to be served."""
    assert base.detection is not None
    preprocess = _preprocess(graph, base, said.preprocess)
    inputs = fixed_inputs(preprocess, 2)
    detection = _detection(graph, base.detection, inputs, said)
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


def _detection(graph: Graph, base: Detection, inputs: Array, said: Said) -> Detection:
    return own_detectors.read_detection(
        graph, base, inputs, numbering=said.numbering, box_form=said.box_form, chosen=said.outputs
    )


def _detector_batch(graph: Graph, base: Variant, inputs: Array, compared: tuple[str, str]) -> int:
    """`max_batch_size` of a detector, whose boxes and scores are compared."""
    if _is_fixed(graph) and base.platform.facts.refuses_other_batches:
        return 0

    def is_same(output: TensorSpec, together: Array, apart: Array) -> bool:
        return output.name not in compared or np.allclose(together, apart, rtol=0, atol=_SAME_DETECTION)

    return max(base.max_batch_size, 1) if _takes_batches(graph, inputs, is_same) else 1


def classifier_outputs(graph: Graph, chosen: Sequence[str] = ()) -> tuple[TensorSpec, ...]:
    """The outputs, with the one to request marked: the arg-max if there is one, else the scores.

    Args:
        graph: the file, opened.
        chosen: the name of the output to request; empty where that is clear.

    Raises:
        ConversionError: these are not the outputs of a classifier, or several could be requested.
    """
    labels = [output.name for output in graph.outputs if output.is_class]
    scores = [output.name for output in graph.outputs if output.is_scores]
    fitting = labels + scores
    if chosen:
        wanted = [name for name in fitting if name.removesuffix(":0") == chosen[0].removesuffix(":0")]
        is_clear = len(chosen) == 1 and bool(wanted)
    else:
        wanted = fitting[:1]
        is_clear = max(len(labels), len(scores)) == 1 and len(fitting) == len(graph.outputs)
    has_boxes = any(len(output.shape) == 2 and output.shape[1] == 4 for output in graph.outputs)
    if wanted and not has_boxes and (classes := _classes_of_best(graph, wanted[0])):
        raise ConversionError(
            f"{graph.path}: {wanted[0]} has the best scores only, and {classes} whose they are: export the "
            "scores of all classes, or the best class as one whole number"
        )
    if not is_clear:
        found = ", ".join(f"{output.name} {output.dtype} {['n', *output.shape]}" for output in graph.outputs)
        hint = f"; --outputs {fitting[0]} chooses one" if fitting and not has_boxes else ""
        raise ConversionError(
            f"{graph.path}: not an image classifier: one output of scores [n, classes] and/or one of classes "
            f"[n] wanted; it has {found.replace(chr(39), '')}{hint}"
        )
    return tuple(replace(output, is_requested=output.name == wanted[0]) for output in graph.outputs)


def _classes_of_best(graph: Graph, scores: str) -> str:
    """The output beside sorted scores that names their classes; or nothing, where they are not of a top-k."""
    output = next(each for each in graph.outputs if each.name == scores)
    others = [each for each in graph.outputs if each is not output and each.dtype.is_whole]
    beside = [each.name for each in others if each.shape == output.shape]
    if not output.is_scores or not beside:
        return ""
    shape = (graph.fixed_batch or 1, *graph.input.shape)
    images = [np.full(shape, value).astype(graph.input.dtype.value) for value in (1, 2, 7)]
    found = [graph.run(image)[graph.outputs.index(output)].reshape(shape[0], -1) for image in images]
    falls = [np.diff(each.astype(np.float64)) for each in found]
    # Scores that do not differ at all are in no order.
    return beside[0] if all((fall <= 0).all() and fall.any() for fall in falls) else ""


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


def _tolerance(graph: Graph, inputs: Array, share: float) -> float:
    """How far an export's floating-point answers may be from the file's own."""
    is_half = DType.FP16 in [tensor.dtype for tensor in (graph.input, *graph.outputs)]
    answers = [answer for answer in graph.run(inputs[:1]) if np.issubdtype(answer.dtype, np.floating)]
    return max((allowed_difference(answer, share, is_half=is_half) for answer in answers), default=0.0)

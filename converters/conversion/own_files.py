"""A user's own file of a model's task: what it takes and gives is read from the file."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.conversion import own_detectors, own_inputs
from converters.conversion.parity import classes
from converters.formats.graph import Array, Graph
from converters.inputs import fixed_inputs
from harness.answers.precision import GPU_SHARE, QUANTUM, allowed_difference, largest_difference
from harness.errors import ConversionError
from harness.machine.paths import absolute
from harness.models import MODELS, own_recipes
from harness.models.platforms import Platform
from harness.models.spec import (
    Detection,
    DType,
    Layout,
    Numbering,
    Task,
    TensorSpec,
    Variant,
)

_WITH_BACKGROUND = 1001
"""Classes of a network that counts ImageNet's from 1, as TensorFlow's do: class 0 is none of them."""

_LEAST_INDICES = 5
"""Numbers in a row that tell: fewer may well be scores that happen to be whole and to differ."""
_MOST_CLASSES = 100_000
"""More than any data set has; scores that are whole numbers are sums, of pixels or of votes."""
_WHAT_TO_EXPORT = "export the scores of all classes, or the best class as one whole number"
_SAMPLES = 4
"""Images that tell how a classifier answers."""
_DETECTOR_SAMPLES = 2
"""Of a detector, which may take seconds for each."""
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
    preprocess = own_inputs.recipe_of(graph, base, said.preprocess)
    inputs = fixed_inputs(preprocess, _SAMPLES)
    return Variant(
        platform=base.platform,
        input=graph.input,
        outputs=outputs,
        preprocess=preprocess,
        label_offset=_label_offset(graph, outputs, said),
        max_batch_size=base.max_batch_size if _takes_batches(graph, inputs, _is_same_answer) else 1,
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
    """See that a file is of its model's task, takes samples one by one, and can hold what the recipe makes.

    Raises:
        ConversionError: it is not, does not or cannot.
    """
    _is_fixed(graph)
    preprocess = own_inputs.recipe_of(graph, base, said.preprocess)
    inputs = fixed_inputs(preprocess, _DETECTOR_SAMPLES if base.detection else _SAMPLES)
    if base.detection:
        _detection(graph, base.detection, inputs, said)
    else:
        _check_scores(graph, classifier_outputs(graph, said.outputs), inputs)
    if not said.preprocess:
        own_inputs.check_range(graph, base, preprocess)


def _detector(graph: Graph, base: Variant, said: Said) -> Variant:
    """Describe a detector that is to be served."""
    assert base.detection is not None
    preprocess = own_inputs.recipe_of(graph, base, said.preprocess)
    inputs = fixed_inputs(preprocess, _DETECTOR_SAMPLES)
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
            f"{graph.path}: {wanted[0]} has the best scores only, and {classes} whose they are: "
            f"{_WHAT_TO_EXPORT}"
        )
    if not is_clear:
        raise _no_classifier(
            graph, f"; --outputs {fitting[0]} chooses one" if fitting and not has_boxes else ""
        )
    return tuple(replace(output, is_requested=output.name == wanted[0]) for output in graph.outputs)


def _no_classifier(graph: Graph, hint: str) -> ConversionError:
    found = ", ".join(f"{output.name} {output.dtype} {['n', *output.shape]}" for output in graph.outputs)
    return ConversionError(
        f"{graph.path}: not an image classifier: one output of scores [n, classes] and/or one of classes [n] "
        f"wanted; it has {found.replace(chr(39), '')}{hint}"
    )


def _check_scores(graph: Graph, outputs: tuple[TensorSpec, ...], inputs: Array) -> None:
    """See that the scores to request are none that only look so, by their shape and type.

    Raises:
        ConversionError: they are numbers of classes, the best first.
    """
    index, output = next(pair for pair in enumerate(outputs) if pair[1].is_requested)
    if output.is_scores and _are_indices([graph.run(image[np.newaxis])[index] for image in inputs]):
        raise _no_classifier(
            graph, f"; {output.name} holds the numbers of classes, not scores: {_WHAT_TO_EXPORT}"
        )


def _are_indices(answers: Sequence[Array]) -> bool:
    """Whether scores, each of one image, are the places that a top-k or a sort names."""
    rows = np.stack([answer.ravel() for answer in answers]).astype(np.float64)
    # A quantised network's scores are whole numbers too, but reach beyond their count or have equals.
    limit = _MOST_CLASSES if np.issubdtype(answers[0].dtype, np.floating) else rows.shape[1]
    is_place = (rows >= 0) & (rows < limit) & (rows == np.rint(rows))
    ordered = np.sort(rows, axis=1)
    is_distinct = (ordered[:, 1:] > ordered[:, :-1]).all()
    return rows.shape[1] >= _LEAST_INDICES and bool(is_place.all() and is_distinct)


def _classes_of_best(graph: Graph, scores: str) -> str:
    """The output beside sorted scores that names their classes; or nothing, where they are not of a top-k."""
    index, output = next(pair for pair in enumerate(graph.outputs) if pair[1].name == scores)
    others = [pair for pair in enumerate(graph.outputs) if pair[0] != index and pair[1].shape == output.shape]
    if not output.is_scores or not others:
        return ""
    shape = (graph.fixed_batch or 1, *graph.input.shape)
    images = [np.full(shape, value).astype(graph.input.dtype.value) for value in (1, 2, 7)]
    answers = [graph.run(image) for image in images]
    rows = [each[index].reshape(shape[0], -1) for each in answers]
    # Scores that do not differ at all are in no order.
    if not all((row[:, 1:] <= row[:, :-1]).all() and (row[:, 1:] < row[:, :-1]).any() for row in rows):
        return ""
    beside = (
        other.name
        for place, other in others
        if other.dtype.is_whole or _are_indices([row for each in answers for row in each[place]])
    )
    return next(beside, "")


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
    """Whether samples at once give what they give one by one; `is_same` compares one output of one."""
    if _is_fixed(graph):
        return False
    single = [graph.run(inputs[index : index + 1]) for index in range(len(inputs))]
    try:
        at_once = graph.run(inputs)
    except Exception:  # noqa: BLE001 - each framework has its own, often bare RuntimeError
        return False
    return all(
        together[index : index + 1].shape == apart[index_of].shape
        and is_same(output, together[index : index + 1], apart[index_of])
        for index, apart in enumerate(single)
        for index_of, (output, together) in enumerate(zip(graph.outputs, at_once, strict=True))
    )


def _is_same_answer(output: TensorSpec, together: Array, apart: Array) -> bool:
    """Whether a classifier names the same class, by scores as near as the live server's must be."""
    if (classes(together) != classes(apart)).any():
        return False
    if np.issubdtype(apart.dtype, np.floating):
        allowed = allowed_difference(apart, GPU_SHARE, is_half=apart.dtype == np.float16)
    elif output.is_scores:
        allowed = QUANTUM
    else:
        return True
    return largest_difference(together, apart) <= allowed


def _tolerance(graph: Graph, inputs: Array, share: float) -> float:
    """How far an export's floating-point answers may be from the file's own."""
    is_half = DType.FP16 in [tensor.dtype for tensor in (graph.input, *graph.outputs)]
    answers = [answer for answer in graph.run(inputs[:1]) if np.issubdtype(answer.dtype, np.floating)]
    return max((allowed_difference(answer, share, is_half=is_half) for answer in answers), default=0.0)

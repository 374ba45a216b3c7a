"""Source and export, each run by its own framework on the same inputs: how far are they apart?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.formats.graph import Array, Graph, relayout
from harness.answers.precision import QUANTUM, largest_difference
from harness.errors import ConversionError
from harness.models.manifest import Parity
from harness.models.spec import TensorSpec, Variant

_CHUNKS = (1, 3, 12)
"""Batch sizes in which the inputs are run, so that an export which only takes one size is found out."""

_LARGE_CHUNKS = (1, 2)
_LARGE_BYTES = 4 << 20
"""Inputs above take seconds each."""

_GOLDEN_SAMPLES = 4


@dataclass(frozen=True)
class Comparison:
    """What was found, and what the entry's golden.npz holds."""

    parity: Parity
    kept: tuple[int, ...]
    """The inputs that the entry keeps, to be asked of the live server."""
    golden: dict[str, Array]
    found_nothing: bool = False
    """Detectors: whether there was nothing to compare but that."""


def chunks(variant: Variant) -> tuple[int, ...]:
    """Batch sizes in which the fixed inputs are run."""
    sizes = _LARGE_CHUNKS if _is_large(variant) else _CHUNKS
    return sizes if variant.max_batch_size >= max(sizes) else (1,) * sum(sizes)


def golden_samples(variant: Variant) -> int:
    """How many of the fixed inputs are kept beside an entry, to be asked of the live server."""
    return 1 if _is_large(variant) else _GOLDEN_SAMPLES


def _is_large(variant: Variant) -> bool:
    return variant.input.sample_bytes >= _LARGE_BYTES


def compare(source: Graph, export: Graph, variant: Variant, inputs: Array) -> Comparison:
    """Run both and compare every output of scores or other real numbers, and each sample's predicted class.

    Args:
        source: the file that the weights came from; its axis order may differ.
        export: what is to be served.
        variant: says what is requested, and the tolerance.
        inputs: (sum of `chunks`, *variant.input.shape) in the variant's layout and dtype.

    Raises:
        ConversionError: further apart than the variant allows.
    """
    sizes = chunks(variant)
    expected = run(source, relayout(inputs, variant.preprocess.layout, source.layout), sizes)
    answers = run(export, inputs, sizes)
    order = list(expected)
    expected = {name: expected[order[source_index(source, list(answers), name)]] for name in answers}
    distances = [
        (_largest_difference(expected[name], answer), allowed)
        for name, answer in answers.items()
        if (allowed := _allowed(name, answer, variant)) is not None
    ]
    agreement = [
        float(_is_same_class(expected[output.name], answers[output.name], variant).mean())
        for output in variant.requested_outputs
    ]
    # The first key is written so that a NaN is the worst.
    worst = max(distances, key=lambda one: (not one[0] <= one[1], one[0] / (one[1] or 1.0)), default=None)
    parity = Parity(len(inputs), *(worst or (0.0, variant.tolerance)), min(agreement))
    _check(parity, source, export)
    kept = tuple(range(golden_samples(variant)))
    golden = {
        f"output:{output.name}": expected[output.name][: len(kept)] for output in variant.requested_outputs
    }
    return Comparison(parity, kept, golden)


def run(graph: Graph, inputs: Array, sizes: tuple[int, ...]) -> dict[str, Array]:
    """Run a graph on its own layout, in batches of these sizes; the answers by output name."""
    ends = np.cumsum(sizes)
    parts = [graph.run(inputs[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    return {
        output.name: np.concatenate([part[index] for part in parts])
        for index, output in enumerate(graph.outputs)
    }


def classes(output: Array) -> Array:
    """(n,) int64: the predicted class, whether or not the graph ends in an arg-max; axes of 1 are none."""
    flat = output.reshape(len(output), -1)
    return (flat[:, 0] if flat.shape[1] == 1 else flat.argmax(axis=1)).astype(np.int64)


def _allowed(name: str, answer: Array, variant: Variant) -> float | None:
    """How far apart an output's numbers may be; None of whole numbers that are no scores."""
    if np.issubdtype(answer.dtype, np.floating):
        return variant.tolerance
    is_scores = any(output.name == name and output.is_scores for output in variant.requested_outputs)
    return QUANTUM if is_scores else None


def _is_same_class(expected: Array, answers: Array, variant: Variant) -> Array:
    """(n,) bool; in few bits the class of a score that cannot be told from the best one is as good."""
    predicted = classes(answers)
    is_whole = not np.issubdtype(answers.dtype, np.floating)
    if len(expected[0].ravel()) == 1 or not (variant.is_half or is_whole):
        return np.asarray(predicted == classes(expected))
    scores = expected.reshape(len(expected), -1).astype(np.float64)
    below = scores.max(axis=1) - scores[np.arange(len(scores)), predicted]
    return np.asarray(below <= (QUANTUM if is_whole else variant.tolerance))


def check_tensors(export: Graph, variant: Variant) -> None:
    """See that an export has the declared tensors.

    Raises:
        ConversionError: a name, dtype or shape differs, or the batch axis is fixed where it should be free.
    """
    found, declared = (export.input, *export.outputs), (variant.input, *variant.outputs)
    by_name = {tensor.name: tensor for tensor in found}
    is_right = len(found) == len(declared) and all(
        tensor.name in by_name and _is_as_declared(by_name[tensor.name], tensor) for tensor in declared
    )
    # A free batch axis, or a fixed one of 1 where Triton is told of none.
    if not is_right or export.fixed_batch != (1 if variant.max_batch_size == 0 else 0):
        raise ConversionError(
            f"{export.path}: has {_listing(found)}, batch {export.fixed_batch or 'any'}; "
            f"the declaration says {_listing(declared)}, batch 1-{variant.batch_limit}"
        )


def _is_as_declared(found: TensorSpec, declared: TensorSpec) -> bool:
    """Whether type and shape are those declared; a declared size of -1 is any."""
    return (
        found.dtype == declared.dtype
        and len(found.shape) == len(declared.shape)
        and all(want in (have, -1) for have, want in zip(found.shape, declared.shape, strict=True))
    )


def source_index(source: Graph, names: Sequence[str], name: str) -> int:
    """Position of the source's output that became the export's output `name`.

    Args:
        source: the file that the weights came from.
        names: of all the export's outputs, in order.
        name: one of them; the same as the source's but for `:0`, else in the same place.

    Raises:
        ConversionError: there is none.
    """
    bare = [output.name.removesuffix(":0") for output in source.outputs]
    if name.removesuffix(":0") in bare:
        return bare.index(name.removesuffix(":0"))
    if len(bare) != len(names):
        raise ConversionError(f"{source.path}: has outputs {', '.join(bare)}, and none for {name}")
    return names.index(name)


def _largest_difference(expected: Array, answer: Array) -> float:
    if expected.shape != answer.shape:
        raise ConversionError(f"shapes differ: {expected.shape} at the source, {answer.shape} in the export")
    return largest_difference(expected, answer)


def _check(parity: Parity, source: Graph, export: Graph) -> None:
    # Written so that a NaN fails.
    if parity.max_abs_diff <= parity.tolerance and parity.agreement == 1.0:
        return
    raise ConversionError(
        f"{export.path.name} does not equal its source {source.path}: largest difference "
        f"{parity.max_abs_diff:.3g} (allowed {parity.tolerance:.3g}), same class on "
        f"{parity.agreement:.1%} of {parity.samples} samples; not published"
    )


def _listing(tensors: Sequence[TensorSpec]) -> str:
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    return ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in ordered)

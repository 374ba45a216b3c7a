"""Source and export, each run by its own framework on the same inputs: how far are they apart?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.graph import Array, Graph, relayout
from harness.errors import ConversionError
from harness.manifest import Parity
from harness.models.spec import TensorSpec, Variant

CHUNKS = (1, 3, 12)
"""Batch sizes in which the inputs are run, so that an export which only takes one size is found out."""

SAMPLES = sum(CHUNKS)


@dataclass(frozen=True)
class Comparison:
    """What was found, and the source's answers by the export's output names."""

    parity: Parity
    expected: dict[str, Array]


def compare(source: Graph, export: Graph, variant: Variant, inputs: Array) -> Comparison:
    """Run both and compare every floating-point output, and the predicted class of every sample.

    Args:
        source: the file that the weights came from; its axis order may differ.
        export: what is to be served.
        variant: says what is requested, and the tolerance.
        inputs: (SAMPLES, *variant.input.shape) in the variant's layout and dtype.

    Raises:
        ConversionError: further apart than the variant allows.
    """
    chunks = CHUNKS if variant.max_batch_size >= max(CHUNKS) else (1,) * SAMPLES
    expected = run(source, relayout(inputs, variant.preprocess.layout, source.layout), chunks)
    answers = run(export, inputs, chunks)
    order = list(expected)
    expected = {name: expected[order[source_index(source, list(answers), name)]] for name in answers}
    differences = [
        _largest_difference(expected[name], answers[name])
        for name in answers
        if np.issubdtype(answers[name].dtype, np.floating)
    ]
    agreement = [
        float((classes(expected[output.name]) == classes(answers[output.name])).mean())
        for output in variant.requested_outputs
    ]
    parity = Parity(len(inputs), max(differences, default=0.0), variant.tolerance, min(agreement))
    _check(parity, source, export)
    return Comparison(parity, expected)


def run(graph: Graph, inputs: Array, chunks: tuple[int, ...]) -> dict[str, Array]:
    """Run a graph on its own layout, chunk by chunk; the answers by output name."""
    ends = np.cumsum(chunks)
    parts = [graph.run(inputs[end - size : end]) for size, end in zip(chunks, ends, strict=True)]
    return {
        output.name: np.concatenate([part[index] for part in parts])
        for index, output in enumerate(graph.outputs)
    }


def classes(output: Array) -> Array:
    """(n,) int64: the predicted class, whether or not the graph ends in an arg-max."""
    return (output if output.ndim == 1 else output.argmax(axis=1)).astype(np.int64)


def check_tensors(export: Graph, variant: Variant) -> None:
    """See that an export has the declared tensors.

    Raises:
        ConversionError: a name, dtype or shape differs, or the batch axis is fixed.
    """
    found = {export.input, *export.outputs}
    declared = {_bare(tensor) for tensor in (variant.input, *variant.outputs)}
    if {_bare(tensor) for tensor in found} != declared or export.fixed_batch not in (
        0,
        variant.max_batch_size,
    ):
        raise ConversionError(
            f"{export.path}: has {_listing(found)}, batch {export.fixed_batch or 'any'}; "
            f"the declaration says {_listing(declared)}, batch 1-{variant.max_batch_size}"
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
    return float(np.abs(expected.astype(np.float64) - answer.astype(np.float64)).max())


def _check(parity: Parity, source: Graph, export: Graph) -> None:
    # Written so that a NaN fails.
    if parity.max_abs_diff <= parity.tolerance and parity.class_agreement == 1.0:
        return
    raise ConversionError(
        f"{export.path.name} does not equal its source {source.path}: largest difference "
        f"{parity.max_abs_diff:.3g} (allowed {parity.tolerance:.3g}), same class on "
        f"{parity.class_agreement:.1%} of {parity.samples} samples; not published"
    )


def _bare(tensor: TensorSpec) -> tuple[str, str, tuple[int, ...]]:
    return tensor.name, tensor.dtype.value, tensor.shape


def _listing(tensors: set[TensorSpec] | set[tuple[str, str, tuple[int, ...]]]) -> str:
    bare = sorted(_bare(tensor) if isinstance(tensor, TensorSpec) else tensor for tensor in tensors)
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, dtype, shape in bare)

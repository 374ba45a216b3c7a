"""Source and export of a detector, each run by its own framework on the same images: do they find the same?

Their tensors need not be alike: one may list as many boxes as it found and the other pad to a fixed number,
in another order of corners. What is compared is what each would log (`harness.answers.payloads`).
"""

from collections.abc import Sequence

import numpy as np

from converters.conversion import parity
from converters.conversion.own_detectors import LARGEST_SHARE
from converters.conversion.parity import Comparison
from converters.formats.graph import Array, Graph, relayout
from harness.answers import agreement, payloads
from harness.answers.payloads import Payload
from harness.errors import ConversionError
from harness.models.manifest import GOLDEN_DETECTIONS, Parity
from harness.models.spec import BOX_FORMS, Variant


def compare(
    source: Graph,
    source_variant: Variant,
    export: Graph,
    variant: Variant,
    inputs: Array,
    *,
    is_copy: bool = False,
) -> Comparison:
    """Run both and match their detections.

    Args:
        source: the file that the weights came from; its axis order may differ.
        source_variant: how its answers are read.
        export: what is to be served.
        variant: how the export's answers are read, and the tolerance.
        inputs: (n, *variant.input.shape) in the variant's layout and dtype.
        is_copy: whether the export is the source's file, which may find nothing in these images.

    Raises:
        ConversionError: too many detections without a twin, or of a conversion none at all, which would prove
            nothing.
    """
    relaid = relayout(inputs, variant.preprocess.layout, source.layout)
    expected = run(source, source_variant, relaid, (1,) * len(inputs))
    found = run(export, variant, inputs, parity.chunks(variant))
    if source_variant.detection:
        _check_shares(source, source_variant.detection.box_form, expected)
    agreed = agreement.compare(expected, found, variant.tolerance)
    if not agreed.detections and not is_copy:
        raise ConversionError(
            f"{source.path}: finds nothing in any of {len(inputs)} test images, which proves nothing of "
            "a conversion: lower the score threshold inside it, or serve it by its own framework, as it is"
        )
    if agreed.share < agreement.MIN_AGREEMENT:
        raise ConversionError(
            f"{export.path.name} does not equal its source {source.path}: of {agreed.detections} "
            f"detections on {len(inputs)} images {agreed.share:.1%} are found by both within "
            f"{variant.tolerance:.3g}; not published"
        )
    found_parity = Parity(len(inputs), agreed.largest_difference, variant.tolerance, agreed.share)
    # An image in which nothing is found would prove nothing of a live server.
    strength = [len(payloads.strongest(records)) for records in expected]
    kept = tuple(np.argsort(strength)[::-1][: parity.golden_samples(variant)].tolist())
    golden_records = golden([expected[index] for index in kept])
    return Comparison(found_parity, kept, golden_records, found_nothing=not agreed.detections)


def _check_shares(source: Graph, form: str, found: Sequence[Payload]) -> None:
    corners = np.concatenate(found)[:, 1:5]
    if len(corners) and np.median(np.abs(corners).max(axis=1)) > LARGEST_SHARE:
        raise ConversionError(
            f"{source.path}: its boxes, read as {form}, reach up to {corners.max():.0f} times the image's "
            f"sides: say with --boxes what they are: {', '.join(BOX_FORMS)} (of the network's input)"
        )


def run(graph: Graph, variant: Variant, inputs: Array, chunks: Sequence[int]) -> list[Payload]:
    """Run a graph on its own layout, chunk by chunk; the records of each sample."""
    results: list[Payload] = []
    for size in chunks:
        start = len(results)
        results += records(graph, variant, inputs[start : start + size], start)
    return results


def records(graph: Graph, variant: Variant, batch: Array, first_index: int) -> list[Payload]:
    """Run a graph on one batch.

    Args:
        graph: a detector.
        variant: how its answers are read.
        batch: in the graph's own layout.
        first_index: sample index of the first.

    Returns:
        (m, 7) records of each sample.
    """
    answers = dict(zip((output.name for output in graph.outputs), graph.run(batch), strict=True))
    tensors = [answers[output.name] for output in variant.requested_outputs]
    return payloads.decode(variant, tensors, range(first_index, first_index + len(batch)))


def golden(found: Sequence[Payload]) -> dict[str, Array]:
    """What an entry's golden.npz holds beside the inputs: their records, numbered from 0."""
    records = np.concatenate(found)
    records[:, 0] = np.repeat(np.arange(len(found)), [len(part) for part in found])
    return {GOLDEN_DETECTIONS: records}

"""An export that is not published yet, beside the source that it has to equal."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from converters.conversion import detection_parity, model_files, own_files, parity
from converters.conversion.own_files import Said
from converters.conversion.parity import Comparison
from converters.conversion.weights import SourceFile
from converters.formats.graph import Array, Graph, relayout
from converters.inputs import fixed_inputs
from harness.errors import ConversionError
from harness.models.manifest import USER_FILE
from harness.models.platforms import ending_of
from harness.models.spec import ModelSpec, Nms, Variant

_SAME = 1e-3
"""How far, relative to themselves, answers of one graph to one image may be apart by rounding alone."""


@dataclass(frozen=True)
class Candidate:
    """Both files, opened; what is served is settled here, and compared."""

    spec: ModelSpec
    declared: Variant
    """The model's own declaration for the platform, with the NMS that was chosen."""
    said: Said
    """What the user says of a file of their own."""
    source: SourceFile
    reference: Graph
    """The source."""
    target: Path
    """The file to be served."""
    export: Graph
    """That file, or its twin with the NMS that the source has."""

    @cached_property
    def variant(self) -> Variant:
        """The declaration, which the export's tensors must meet; of a user's file, what it says itself.

        Raises:
            ConversionError: the export cannot be served so.
        """
        if self.source.kind != USER_FILE:
            parity.check_tensors(self.export, self.declared)
            return self.declared
        # What is wrong is said of the user's file and not of ours.
        export = replace(self.export, path=self.source.path)
        variant = own_files.variant_of(export, self.declared, self.said)
        if self.target.name != variant.model_filename:
            variant = replace(variant, other_filename=self.target.name)
        is_built_here = ending_of(self.source.path) != self.target.suffix
        # A graph that was built here has what could be chosen.
        return replace(variant, nms_choices=self.declared.nms_choices) if is_built_here else variant

    @cached_property
    def inputs(self) -> Array:
        """(n, *variant.input.shape), what both are asked."""
        return fixed_inputs(self.variant.preprocess, sum(parity.chunks(self.variant)))

    def compare(self) -> Comparison:
        """Run both.

        Raises:
            ConversionError: further apart than the variant allows.
        """
        try:
            return self._compare_detections() if self.variant.detection else self._compare_tensors()
        except ConversionError as error:
            if not self._is_random():
                raise
            raise ConversionError(
                f"{self.source.path}: answers the same image otherwise each time, so that nothing can be "
                "compared with it: export it for inference, e.g. after eval(), which ends dropout"
            ) from error

    def _is_random(self) -> bool:
        """Whether the source does not even equal itself."""
        image = relayout(self.inputs[:1], self.variant.preprocess.layout, self.reference.layout)
        pairs = zip(self.reference.run(image), self.reference.run(image), strict=True)
        return not all(np.allclose(one, other, rtol=_SAME, equal_nan=True) for one, other in pairs)

    def _compare_tensors(self) -> Comparison:
        return parity.compare(self.reference, self.export, self.variant, self.inputs)

    def _compare_detections(self) -> Comparison:
        source_variant = model_files.variant_of_source(self.reference, self.spec, self.source.kind, self.said)
        found = detection_parity.compare(
            self.reference,
            source_variant,
            self.export,
            self.variant,
            self.inputs,
            is_copy=model_files.is_copied(self.source.path, self.export.path),
        )
        return found if self.export.path == self.target else replace(found, golden=self._golden(found.kept))

    def _golden(self, kept: Sequence[int]) -> dict[str, Array]:
        """Of the file that is served: the source has another NMS."""
        inputs = self.inputs[list(kept)]
        with _open_export(self.target, self.spec, self.reference) as graph:
            answers = detection_parity.run(graph, self.variant, inputs, (1,) * len(inputs))
        return detection_parity.golden(answers)


@contextmanager
def opened(
    spec: ModelSpec, declared: Variant, said: Said, source: SourceFile, target: Path
) -> Iterator[Candidate]:
    """Open an export, `target`, and its source; what they are is said at `Candidate`."""
    with ExitStack() as stack:
        checked = stack.enter_context(_with_the_sources_nms(spec, declared, source, target))
        size_px, layout = said.size_px(spec.task), said.layout(spec.task)
        reference = stack.enter_context(model_files.open_file(source.path, spec, size_px, layout))
        export = stack.enter_context(_open_export(checked, spec, reference))
        yield Candidate(spec, declared, said, source, reference, target, export)


def _open_export(path: Path, spec: ModelSpec, reference: Graph) -> AbstractContextManager[Graph]:
    # TorchScript that is built here is NCHW, whatever its source is.
    is_built_here = path.suffix == ".pt" != ending_of(reference.path)
    layout = None if is_built_here else reference.layout
    return model_files.open_file(path, spec, reference.size_px, layout, as_served=True)


@contextmanager
def _with_the_sources_nms(
    spec: ModelSpec, declared: Variant, source: SourceFile, target: Path
) -> Iterator[Path]:
    """What is compared with the source: the export, or a twin of it that lasts as long as the block."""
    if declared.detection is None or declared.detection.nms == Nms.CORRECTED:
        yield target
        return
    twin = target.with_stem("corrected")
    model_files.export(declared.platform, source.path, twin, spec, Nms.CORRECTED)
    try:
        yield twin
    finally:
        twin.unlink()

"""python -m converters.source: what the source framework itself predicts, without Triton.

Where the labels of a data set are no truth (seeded weights, synthetic images), these are.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from converters import command
from converters.conversion import detection_parity, model_files, parity
from converters.conversion.own_files import NOTHING_SAID, Said
from converters.formats.graph import Array, Graph, relayout
from harness.answers import precision
from harness.errors import ConversionError
from harness.machine.command import OneLineParser
from harness.machine.files import whole
from harness.machine.progress import track
from harness.models import get_model, manifest
from harness.models.manifest import Manifest
from harness.models.spec import Nms, Variant

DEFAULT_BATCH = 16


def predict(
    entry_dir: Path, samples: Array, batch: int = DEFAULT_BATCH, *, wants_scores: bool = False
) -> Array:
    """Run the file that an entry's weights came from, in its own framework.

    Args:
        entry_dir: a converted entry.
        samples: (n, *variant.input.shape) in variant.input.dtype; may be a memory map.
        batch: samples at a time, at most; fewer where the model takes fewer.
        wants_scores: of a classifier that has them, the scores instead of the winner.

    Returns:
        Classifiers: (n,) int64 labels, arg-max + label_offset; or (n, classes) scores.
        Detectors: (m, 7) float32 records of `harness.answers.payloads`, in the order of the samples.

    Raises:
        ConversionError: the weights are gone or changed, or the samples are for another model.
    """
    facts = manifest.load(entry_dir)
    variant, spec = facts.variant, get_model(facts.model)
    if samples.shape[1:] != variant.input.shape or samples.dtype.name != variant.input.dtype:
        raise ConversionError(
            f"samples are {samples.dtype} {list(samples.shape[1:])}, {facts.entry} takes "
            f"{variant.input.dtype} {list(variant.input.shape)}"
        )
    recipe = variant.preprocess
    with model_files.open_file(_source(facts, entry_dir), spec, recipe.size_px, recipe.layout) as graph:
        if variant.detection:
            answer = _detector(graph, facts)
        else:
            answer = (_scorer if wants_scores else _labeller)(graph, facts)
        # Some detectors' source files take one image at a time.
        step = min(batch, variant.batch_limit) if variant.detection is None else 1
        starts = range(0, len(samples), step)
        parts = []
        for start in track(starts, f"{facts.entry}: predicting at the source", len(starts)):
            chunk = np.ascontiguousarray(samples[start : start + step])
            parts.append(answer(relayout(chunk, variant.preprocess.layout, graph.layout), start))
    return np.concatenate(parts)


def _scorer(graph: Graph, facts: Manifest) -> Callable[[Array, int], Array]:
    scores = precision.scores_of(facts.variant)
    if scores is None:
        raise ConversionError(f"{facts.entry} names the winning class only, without scores")
    index = _index(graph, facts.variant, scores.name)
    return lambda batch, _: graph.run(batch)[index].reshape(len(batch), -1)


def _index(graph: Graph, variant: Variant, name: str) -> int:
    return parity.source_index(graph, [output.name for output in variant.outputs], name)


def _labeller(graph: Graph, facts: Manifest) -> Callable[[Array, int], Array]:
    variant = facts.variant
    index = _index(graph, variant, variant.requested_outputs[0].name)
    return lambda batch, _: parity.classes(graph.run(batch)[index]) + variant.label_offset


def _detector(graph: Graph, facts: Manifest) -> Callable[[Array, int], Array]:
    said = NOTHING_SAID
    if facts.variant.detection and _has(graph, facts.variant.detection.boxes):
        # What was said of the file, or found out, and is in the manifest; a graph that we build has its own.
        found = facts.variant.detection
        read = tuple(filter(None, (found.boxes, found.scores, found.classes, found.count)))
        said = Said(numbering=found.numbering, box_form=found.box_form, outputs=read)
    variant = model_files.variant_of_source(graph, get_model(facts.model), facts.weights, said)
    return lambda batch, start: np.concatenate(detection_parity.records(graph, variant, batch, start))


def _has(graph: Graph, name: str) -> bool:
    return any(output.name.removesuffix(":0") == name.removesuffix(":0") for output in graph.outputs)


def _source(facts: Manifest, entry_dir: Path) -> Path:
    """The source file, after its checksum was compared."""
    if facts.variant.detection and facts.variant.detection.nms == Nms.REFERENCE:
        # No published file has that NMS as a graph: the export is its own source, run without Triton.
        return entry_dir / "1" / facts.variant.model_filename
    path = Path(facts.weights_file)
    found = model_files.digest(path) if path.exists() else "missing"
    if found != facts.weights_sha256:
        raise ConversionError(
            f"{path}: checksum sha256:{found}, but {facts.entry} was made from "
            f"sha256:{facts.weights_sha256}; convert it again"
        )
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict for a file of samples; return the exit code."""
    parser = OneLineParser(
        prog="python -m converters.source", description="Predict with the source framework, without Triton."
    )
    parser.add_argument("--entry", type=Path, required=True, metavar="DIR", help="a converted entry")
    parser.add_argument("--samples", type=Path, required=True, metavar="X.npy", help="preprocessed samples")
    parser.add_argument("--output", type=Path, required=True, metavar="Y.npy", help="labels, or boxes")
    parser.add_argument("--batch", type=_positive, default=DEFAULT_BATCH, help="samples at a time")
    parser.add_argument("--scores", action="store_true", help="of classes, instead of the winner's label")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")

    def body() -> None:
        options = parser.parse_args(arguments)
        command.log_all(is_debug=options.debug)
        samples = _load(options.samples)
        answers = predict(options.entry, samples, options.batch, wants_scores=options.scores)
        _save(answers, options.output)

    return command.run(body)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _load(path: Path) -> Array:
    try:
        samples: Array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path}: not a .npy file of samples ({error})") from error
    return samples


def _save(answers: Array, path: Path) -> None:
    try:
        with (
            whole(path) as partial,
            command.on_signal(lambda: partial.unlink(missing_ok=True)),
            partial.open("wb") as stream,
        ):
            np.save(stream, answers)
    except OSError as error:
        raise ConversionError(f"cannot write {path}: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())

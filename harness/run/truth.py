"""What answers are compared with, found when it is first asked for."""

import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.answers.boxes import with_detections_as_truth
from harness.answers.payloads import split, strongest
from harness.answers.precision import MARGIN, is_near_best, scores_of
from harness.data.annotations import Annotations, write_annotations
from harness.models import manifest
from harness.models.manifest import SEEDED
from harness.models.spec import Nms
from harness.run.entries.converter import run_converter
from harness.run.preparation import Prepared

logger = logging.getLogger(__name__)

DATA_SET = "data set"
SOURCE_FRAMEWORK = "source framework"


@dataclass(frozen=True)
class Truth:
    """What the answers are compared with."""

    origin: str
    """`DATA_SET` or `SOURCE_FRAMEWORK`."""
    labels: tuple[int, ...] = ()
    """Classifiers: of each sample."""
    annotations: Annotations | None = None
    """Detectors: the objects in the images."""
    file: str = ""
    """Detectors, where the source framework is the truth: the annotation file."""
    near_labels: tuple[frozenset[int], ...] = ()
    """Classifiers, of each sample: the labels that count as right where the server calculates in fewer bits
    than the source framework (`harness.answers.precision`); empty where only the one in `labels` does."""


class Truths:
    """The truth of a run's answers, each kind found when it is first asked for, which may take a while."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    @functools.cached_property
    def exact(self) -> Truth:
        """For a server whose answers should be the source framework's but for rounding.

        Raises:
            ConversionError: the source framework cannot be run.
        """
        return _find(self._prepared, is_exact=True)

    @functools.cached_property
    def near(self) -> Truth:
        """For a server that calculates in fewer bits than the source framework.

        Raises:
            ConversionError: the source framework cannot be run.
        """
        return _find(self._prepared, is_exact=False)


def _find(prepared: Prepared, *, is_exact: bool) -> Truth:
    """Find the truth for a data set; `is_exact` where the server's answers should be the source's.

    Seeded weights know nothing of the data set's labels, and synthetic images have none. Then the source
    framework's own predictions are the truth: what is measured is that conversion and serving keep them.
    """
    dataset = prepared.dataset
    if dataset.has_labels and prepared.manifest.weights != SEEDED:
        labels = tuple(-1 if sample.label is None else sample.label for sample in dataset.samples)
        return Truth(DATA_SET, labels, dataset.coco)
    variant = prepared.manifest.variant
    if not is_exact and scores_of(variant):
        scores, offset = np.load(_source_answers(prepared, wants_scores=True)), variant.label_offset
        return Truth(
            SOURCE_FRAMEWORK,
            tuple((scores.argmax(axis=1) + offset).tolist()),
            near_labels=tuple(
                frozenset((np.flatnonzero(near) + offset).tolist())
                for near in is_near_best(scores, prepared.config.choice.tolerance or MARGIN)
            ),
        )
    answers = _source_answers(prepared)
    detection = variant.detection
    if detection is None or dataset.coco is None:
        return Truth(SOURCE_FRAMEWORK, tuple(np.load(answers).tolist()))
    records = np.load(answers)
    parts = [strongest(part) for part in split(records, len(dataset.samples))]
    payloads = dict(enumerate(part.tobytes() for part in parts))
    annotations = with_detections_as_truth(dataset.coco, payloads, is_contiguous=detection.is_contiguous)
    file = answers.with_suffix("") / "annotations" / "instances_val2017.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_annotations(annotations, file)
    return Truth(SOURCE_FRAMEWORK, annotations=annotations, file=str(file))


def _source_answers(prepared: Prepared, *, wants_scores: bool = False) -> Path:
    """What the source framework itself predicts for the same samples; computed once and kept."""
    facts = prepared.manifest
    # How the answers are read is the user's to say, too: --label-offset, --outputs, --boxes.
    read_as = hashlib.sha256(repr(facts.variant).encode()).hexdigest()
    key = f"{facts.entry}_{facts.weights_sha256[:16]}_{read_as[:16]}_{prepared.samples.parent.name}"
    if facts.variant.detection and facts.variant.detection.nms == Nms.REFERENCE:
        # Then the export is asked, which another version of the converters may make otherwise.
        key += f"_{facts.graph_sha256[:16]}"
    options = ["--scores"] if wants_scores else []
    key += "_scores" if wants_scores else ""
    path = prepared.config.data.cache / "source-labels" / f"{key}.npy"
    if not _is_readable(path):
        manifest.check_unchanged(facts, prepared.entry_dir)
        logger.info("running the source framework on %d samples", len(prepared.dataset.samples))
        path.parent.mkdir(parents=True, exist_ok=True)
        options += ["--entry", str(prepared.entry_dir), "--samples", str(prepared.samples)]
        run_converter("converters.source", *options, "--output", str(path))
    return path


def _is_readable(path: Path) -> bool:
    """Whether the array is there and whole; a disk that was full may have cut it."""
    try:
        np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return False
    except (OSError, EOFError, ValueError) as error:
        logger.warning("%s is damaged (%s): it will be made again", path, error)
        return False
    return True

"""What a run needs before any server is asked: an exported model, preprocessed samples, true labels."""

import contextlib
import functools
import logging
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.answers.boxes import with_detections_as_truth
from harness.answers.payloads import split, strongest
from harness.answers.precision import is_near_best, scores_of
from harness.config import AUTO, COCO, SYNTHETIC, RunConfig
from harness.config_checks import check_tensors
from harness.data import sample_cache
from harness.data.annotations import Annotations, write_annotations
from harness.data.coco import open_coco, open_synthetic_coco
from harness.data.dataset import Dataset
from harness.data.imagenet import open_imagenet, open_synthetic
from harness.errors import ConfigError, ConversionError
from harness.machine import paths
from harness.machine.environment import cpu_count
from harness.machine.processes import start_module
from harness.models import manifest
from harness.models.manifest import SEEDED, Manifest
from harness.models.spec import Nms, Task

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


@dataclass(frozen=True)
class Prepared:
    """A model and data, ready to be served and queried."""

    config: RunConfig
    manifest: Manifest
    entry_dir: Path
    dataset: Dataset
    samples: Path
    """The preprocessed samples, a .npy array in the order of the data set."""

    @functools.cached_property
    def truth(self) -> Truth:
        """What the answers are compared with; found when it is first asked for, which may take a while.

        Raises:
            ConversionError: the source framework cannot be run.
        """
        return _truth(self, is_exact=True)

    @functools.cached_property
    def near_truth(self) -> Truth:
        """The same for a server that calculates in fewer bits than the source framework.

        Raises:
            ConversionError: the source framework cannot be run.
        """
        return _truth(self, is_exact=False)


def prepare(config: RunConfig) -> Prepared:
    """Export the model and preprocess the data, unless that was done before.

    Raises:
        HarnessError: weights, images or labels are missing or damaged, or an option does not fit the model.
    """
    # First, since an export may take minutes, and a mistyped folder is found in none.
    dataset = _open_dataset(config)
    entry_dir = _convert(config)
    facts = manifest.load(entry_dir)
    if config.max_batchsize and config.max_batchsize > facts.variant.batch_limit:
        raise ConfigError(
            f"--max-batchsize {config.max_batchsize} is impossible: {facts.entry} takes at most "
            f"{facts.variant.batch_limit} samples at once"
        )
    check_tensors(config, facts.variant)
    recipe = facts.variant.preprocess
    sample_cache.preprocessed(dataset, recipe, config.cache, workers=cpu_count())
    samples = sample_cache.cache_path(dataset, recipe, config.cache)
    return Prepared(config, facts, entry_dir, dataset, samples)


def _convert(config: RunConfig) -> Path:
    """Export the model if it is not there yet; in a process of its own, which imports the frameworks."""
    options = ["--model", config.model, "--platform", config.platform, "--weights", config.weights]
    if config.is_user_file and config.dataset not in (AUTO, COCO, SYNTHETIC):
        options += ["--recipe", config.dataset]
    if config.nms is not None:
        options += ["--nms", config.nms]
    return Path(_run_converter("converters", *options, "--print-entry").strip())


def _run_converter(module: str, *options: str) -> str:
    """Run one of the converters' commands; its last line on stderr is the reason should it fail.

    Raises:
        ConversionError: it failed, or was killed.
    """
    # A framework's own debugging output would hide what the converter says.
    level = logging.getLevelName(max(logging.INFO, logger.getEffectiveLevel()))
    process = start_module(
        module,
        *options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        environment={"HARNESS_LOG": level},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    last = ""
    try:
        for line in process.stderr:
            last = line
            if not line.startswith("error: "):
                sys.stderr.write(line)
        output = process.stdout.read()
        code = process.wait()
    except BaseException:
        # It removes its temporary folder on Ctrl-C; should it hang instead, it is killed.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.kill()
        raise
    if code > 0:
        raise ConversionError(last.strip().removeprefix("error: ") or f"python -m {module} failed")
    if code == -signal.SIGKILL:
        raise ConversionError(
            f"python -m {module} was killed, probably because memory ran out: close other programs, or give "
            "this machine or container more memory, and run again"
        )
    if code:
        raise ConversionError(f"python -m {module} was ended by {signal.Signals(-code).name}")
    return output


def _open_dataset(config: RunConfig) -> Dataset:
    spec, is_detector = config.spec, config.spec.task == Task.DETECTION
    if config.dataset_path is not None and config.dataset != SYNTHETIC:
        return (open_coco if is_detector else open_imagenet)(
            config.dataset_path, list_file=config.dataset_list, count=config.count
        )
    if config.dataset == AUTO:
        logger.warning(
            "no --dataset-path (or DATA_DIR): using synthetic images, so accuracy is the agreement with %s",
            "the source framework",
        )
    count = config.count or spec.performance_sample_count
    return (open_synthetic_coco if is_detector else open_synthetic)(paths.STATE_DIR / "synthetic", count)


def _truth(prepared: Prepared, *, is_exact: bool) -> Truth:
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
                frozenset((np.flatnonzero(near) + offset).tolist()) for near in is_near_best(scores)
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
    key = f"{facts.entry}_{facts.weights_sha256[:16]}_{prepared.samples.parent.name}"
    if facts.variant.detection and facts.variant.detection.nms == Nms.REFERENCE:
        # Then the export is asked, which another version of the converters may make otherwise.
        key += f"_{facts.graph_sha256[:16]}"
    options = ["--scores"] if wants_scores else []
    key += "_scores" if wants_scores else ""
    path = prepared.config.cache / "source-labels" / f"{key}.npy"
    if not _is_readable(path):
        manifest.check_unchanged(facts, prepared.entry_dir)
        logger.info("running the source framework on %d samples", len(prepared.dataset.samples))
        path.parent.mkdir(parents=True, exist_ok=True)
        options += ["--entry", str(prepared.entry_dir), "--samples", str(prepared.samples)]
        _run_converter("converters.source", *options, "--output", str(path))
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

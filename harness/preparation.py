"""What a run needs before any server is asked: an exported model, preprocessed samples, true labels."""

import logging
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import manifest, paths, sample_cache
from harness.config import AUTO, SYNTHETIC, RunConfig, cpu_count
from harness.datasets import Dataset, open_imagenet, open_synthetic
from harness.errors import ConfigError, ConversionError
from harness.manifest import SEEDED, Manifest
from harness.processes import start_module

logger = logging.getLogger(__name__)

DATA_SET = "data set"
SOURCE_FRAMEWORK = "source framework"


@dataclass(frozen=True)
class Prepared:
    """A model and data, ready to be served and queried."""

    config: RunConfig
    manifest: Manifest
    entry_dir: Path
    dataset: Dataset
    samples: Path
    """The preprocessed samples, a .npy array in the order of the data set."""


def prepare(config: RunConfig) -> Prepared:
    """Export the model and preprocess the data, unless that was done before.

    Raises:
        HarnessError: weights, images or labels are missing or damaged, or an option does not fit the model.
    """
    entry_dir = _convert(config)
    facts = manifest.load(entry_dir)
    if config.max_batchsize and config.max_batchsize > facts.variant.max_batch_size:
        raise ConfigError(
            f"--max-batchsize {config.max_batchsize} is impossible: {facts.entry} takes at most "
            f"{facts.variant.max_batch_size} samples at once"
        )
    dataset = _open_dataset(config, facts)
    recipe = facts.variant.preprocess
    sample_cache.preprocessed(dataset, recipe, config.cache, workers=cpu_count())
    samples = sample_cache.cache_path(dataset, recipe, config.cache)
    return Prepared(config, facts, entry_dir, dataset, samples)


def _convert(config: RunConfig) -> Path:
    """Export the model if it is not there yet; in a process of its own, which imports the frameworks."""
    options = ["--model", config.model, "--platform", config.platform, "--weights", config.weights]
    if config.is_user_file and config.dataset not in (AUTO, SYNTHETIC):
        options += ["--recipe", config.dataset]
    return Path(_run_converter("converters", *options, "--print-entry").strip())


def _run_converter(module: str, *options: str) -> str:
    """Run one of the converters' commands; its last line on stderr is the reason should it fail."""
    process = start_module(module, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    last = ""
    try:
        for line in process.stderr:
            if last:
                sys.stderr.write(last)
            last = line
        output = process.stdout.read()
        code = process.wait()
    except BaseException:
        # It removes its temporary folder on Ctrl-C; should it hang instead, it is killed.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=2)
        finally:
            process.kill()
        raise
    if code:
        raise ConversionError(last.strip().removeprefix("error: ") or f"python -m {module} failed")
    sys.stderr.write(last)
    return output


def _open_dataset(config: RunConfig, facts: Manifest) -> Dataset:
    spec = config.spec
    if config.dataset_path is not None and config.dataset != SYNTHETIC:
        return open_imagenet(
            config.dataset_path,
            list_file=config.dataset_list,
            count=config.count,
            name=facts.variant.preprocess.name,
        )
    if config.dataset == AUTO:
        logger.warning(
            "no --dataset-path (or DATA_DIR): using synthetic images, so accuracy is the agreement with %s",
            "the source framework",
        )
    count = config.count or spec.performance_sample_count
    return open_synthetic(paths.STATE_DIR / "synthetic", count)


def truth(prepared: Prepared) -> tuple[str, list[int]]:
    """Where the true labels are from (`DATA_SET` or `SOURCE_FRAMEWORK`), and the label of each sample.

    Seeded weights know nothing of the data set's labels, and synthetic images have none. Then the source
    framework's own predictions are the truth: what is measured is that conversion and serving keep them.
    """
    dataset = prepared.dataset
    if dataset.has_labels and prepared.manifest.weights != SEEDED:
        return DATA_SET, [-1 if sample.label is None else sample.label for sample in dataset.samples]
    return SOURCE_FRAMEWORK, np.load(_source_labels(prepared)).tolist()


def _source_labels(prepared: Prepared) -> Path:
    """What the source framework itself predicts for the same samples; computed once and kept."""
    facts = prepared.manifest
    key = f"{facts.entry}_{facts.weights_sha256[:16]}_{prepared.samples.parent.name}"
    path = prepared.config.cache / "source-labels" / f"{key}.npy"
    if not path.exists():
        logger.info("running the source framework on %d samples", len(prepared.dataset.samples))
        path.parent.mkdir(parents=True, exist_ok=True)
        options = ["--entry", str(prepared.entry_dir), "--samples", str(prepared.samples)]
        _run_converter("converters.source", *options, "--output", str(path))
    return path

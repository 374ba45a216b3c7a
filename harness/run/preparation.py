"""What a run needs before any server is asked: an exported model, preprocessed samples, true labels."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data import sample_cache
from harness.data.coco import open_coco, open_synthetic_coco
from harness.data.dataset import Dataset
from harness.data.imagenet import open_imagenet, open_synthetic
from harness.machine import paths
from harness.models import get_variant, manifest
from harness.models.manifest import Manifest
from harness.models.spec import Task
from harness.run.config import settings
from harness.run.config.checks import check_placement, check_tensors
from harness.run.config.run_config import AUTO, SYNTHETIC, RunConfig
from harness.run.converter import run_converter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A model and data, ready to be served and queried."""

    config: RunConfig
    manifest: Manifest
    entry_dir: Path
    dataset: Dataset
    samples: Path
    """The preprocessed samples, a .npy array in the order of the data set."""

    @property
    def served(self) -> str:
        """What the entry is called on the server, with its version where one is wanted."""
        return self.config.server.entry_there(self.manifest.entry)


def prepare(config: RunConfig) -> Prepared:
    """Export the model and preprocess the data, unless that was done before.

    Raises:
        HarnessError: weights, images or labels are missing or damaged, or an option does not fit the model.
    """
    if not config.choice.is_user_file:
        check_placement(config, get_variant(config.spec, config.platform))
    # First, since an export may take minutes, and a mistyped folder is found in none.
    dataset = _open_dataset(config)
    entry_dir = _convert(config)
    facts = manifest.load(entry_dir)
    check_placement(config, facts.variant)
    check_tensors(config, facts.variant)
    for setting in settings.assumed(config, facts.variant):
        logger.info("%s: %s (%s)", setting.name, setting.value, setting.origin)
    samples = sample_cache.preprocessed(dataset, facts.variant.preprocess, config.data.cache)
    return Prepared(config, facts, entry_dir, dataset, samples)


def _convert(config: RunConfig) -> Path:
    """Export the model if it is not there yet; in a process of its own, which imports the frameworks."""
    options = ["--model", config.model, "--platform", config.platform, "--weights", config.choice.weights]
    if config.choice.is_user_file:
        options += _said(config)
    if config.choice.nms is not None:
        options += ["--nms", config.choice.nms]
    return Path(run_converter("converters", *options, "--print-entry").strip())


def _said(config: RunConfig) -> Iterator[str]:
    """What the user says of a file of their own, as the converters' options."""
    choice, (recipe, _) = config.choice, config.own_recipe
    if recipe:
        yield f"--preprocess={recipe}"
    if choice.label_offset is not None:
        yield f"--label-offset={choice.label_offset}"
    if choice.classes:
        yield f"--classes={choice.classes}"
    if choice.boxes:
        yield f"--boxes={choice.boxes}"
    if choice.outputs:
        yield f"--outputs={','.join(choice.outputs)}"


def _open_dataset(config: RunConfig) -> Dataset:
    spec, is_detector = config.spec, config.spec.task == Task.DETECTION
    if config.data.dataset_path is not None and config.data.dataset != SYNTHETIC:
        return (open_coco if is_detector else open_imagenet)(
            config.data.dataset_path, list_file=config.data.dataset_list, count=config.changes.count
        )
    if config.data.dataset == AUTO:
        logger.warning(
            "no --dataset-path (or DATA_DIR): using synthetic images, so accuracy is the agreement with %s",
            "the source framework",
        )
    count = config.changes.count or spec.performance_sample_count
    return (open_synthetic_coco if is_detector else open_synthetic)(paths.STATE_DIR / "synthetic", count)

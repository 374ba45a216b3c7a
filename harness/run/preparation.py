"""What a run needs before any server is asked: an exported model, preprocessed samples, true labels."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data import coco, imagenet, sample_cache
from harness.data.dataset import Dataset
from harness.errors import ConversionError, DatasetError
from harness.machine import files, paths
from harness.models import get_variant, manifest
from harness.models.manifest import OFFICIAL, SEEDED, USER_FILE, Manifest, WeightsWord, is_user_file
from harness.models.spec import Task, Variant
from harness.run.config import settings
from harness.run.config.checks import check_placement, check_tensors
from harness.run.config.run_config import AUTO, SYNTHETIC, RunConfig, RunMode
from harness.run.config.scenario import scenarios_of
from harness.run.entries.converter import run_converter
from harness.run.entries.elsewhere import lacks_frameworks, made_elsewhere

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


SYNTHETIC_IMAGES = "synthetic images"


def foreseen(config: RunConfig) -> tuple[str, ...]:
    """What can be said of a run before it, a sentence each: why one by MLPerf's rules will not be official.

    Nothing is started or written, and no image is opened.

    Raises:
        DatasetError: $DATA_DIR has the images of another task.
    """
    _check_data_dir(config)
    if config.request.mode != RunMode.SUBMISSION and not config.changes.is_official:
        return ()
    of_tests = (reason for test in scenarios_of(config) for reason in test.deviations())
    found = dict.fromkeys((*of_weights(_weights(config)), *_survey(config), *of_tests))
    return (f"this will be no official MLPerf result: {'; '.join(found)}",) if found else ()


def check_folders(config: RunConfig) -> None:
    """See, without touching any, that the images and the places of what a run leaves are there.

    Raises:
        DatasetError: the images are not there, or their list is damaged.
        ConfigError: a folder cannot be written to.
    """
    files.check_place(config.output.output)
    files.check_place(config.data.cache, "samples", "--cache")
    data = config.data
    if data.dataset_path is None or data.dataset == SYNTHETIC:
        return
    if not data.dataset_path.is_dir():
        raise DatasetError(f"dataset folder {data.dataset_path} does not exist; see --dataset-path")
    _survey_of(config)(data.dataset_path, list_file=data.dataset_list)


def of_weights(weights: str) -> Iterator[str]:
    """What keeps a run with such weights (`Manifest.weights`) from being official."""
    if weights != OFFICIAL:
        yield "seeded weights" if weights == SEEDED else "weights from a user's file"


def _weights(config: RunConfig) -> str:
    """What the converters will choose, as `Manifest.weights` has it."""
    word, spec = config.choice.weights, config.spec
    if is_user_file(word) or word != WeightsWord.AUTO:
        return USER_FILE if is_user_file(word) else word
    if manifest.is_fetched(spec.sources[spec.variants[config.platform].source]):
        return OFFICIAL
    try:
        return manifest.load(paths.MODEL_REPOSITORY / spec.entry_name(config.platform)).weights
    except ConversionError:
        return SEEDED


def _survey(config: RunConfig) -> tuple[str, ...]:
    """What keeps the images from being the data set's."""
    data = config.data
    if data.dataset_path is None or data.dataset == SYNTHETIC:
        return (SYNTHETIC_IMAGES,)
    try:
        return _survey_of(config)(data.dataset_path, list_file=data.dataset_list)
    except DatasetError:
        # Which the run will say itself.
        return ()


def _survey_of(config: RunConfig) -> Callable[..., tuple[str, ...]]:
    return coco.survey if config.spec.task == Task.DETECTION else imagenet.survey


def _check_data_dir(config: RunConfig) -> None:
    """Refuse a folder that nobody named for this model: its images would be taken, without labels."""
    path = config.data.dataset_path
    if path is None or config.data.dataset == SYNTHETIC or config.provenance["dataset_path"] != "DATA_DIR":
        return
    is_coco = (path / coco.COCO_LIST_NAME).is_file() or (path / "val2017").is_dir()
    is_imagenet = (path / imagenet.LIST_NAME).is_file()
    is_detector = config.spec.task == Task.DETECTION
    if config.data.dataset_list or (is_coco if is_detector else is_imagenet or not is_coco):
        return
    kind, wanted = ("detector", coco.COCO_LIST_NAME) if is_detector else ("classifier", imagenet.LIST_NAME)
    raise DatasetError(
        f"DATA_DIR is {path}, which has no {wanted}, and {config.model} is a {kind}: give --dataset-path "
        "DIR, or --dataset synthetic"
    )


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
    _check_labels(dataset, facts.variant)
    for setting in settings.assumed(config, facts.variant):
        logger.info("%s: %s (%s)", setting.name, setting.value, setting.origin)
    samples = sample_cache.preprocessed(dataset, facts.variant.preprocess, config.data.cache)
    return Prepared(config, facts, entry_dir, dataset, samples)


def _check_labels(dataset: Dataset, variant: Variant) -> None:
    """See that a classifier has a class for each label, where its output tells how many it has.

    Raises:
        DatasetError: it has not; names the first image.
    """
    scores = variant.requested_outputs[0]
    if variant.detection or not scores.is_scores or scores.numbers < 0:
        return
    lowest, highest = max(variant.label_offset, 0), scores.numbers - 1 + variant.label_offset
    for sample in dataset.samples:
        if sample.label is not None and not lowest <= sample.label <= highest:
            raise DatasetError(
                f"{sample.path} has the label {sample.label}, but the model answers {lowest} to {highest}: "
                "correct the list, or shift the classes of a file of your own with --label-offset"
            )


def _convert(config: RunConfig) -> Path:
    """Export the model if it is not there yet; in a process of its own, which imports the frameworks."""
    if lacks_frameworks(config):
        return made_elsewhere(config)
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
    _check_data_dir(config)
    if config.data.dataset_path is not None and config.data.dataset != SYNTHETIC:
        return (coco.open_coco if is_detector else imagenet.open_imagenet)(
            config.data.dataset_path, list_file=config.data.dataset_list, count=config.changes.count
        )
    if config.data.dataset == AUTO:
        logger.warning(
            "no --dataset-path (or DATA_DIR): using synthetic images, so accuracy is the agreement with %s",
            "the source framework",
        )
    count = config.changes.count or spec.performance_sample_count
    open_synthetic = coco.open_synthetic_coco if is_detector else imagenet.open_synthetic
    return open_synthetic(paths.STATE_DIR / "synthetic", count)

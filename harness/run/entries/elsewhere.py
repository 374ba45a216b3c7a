"""An entry that another machine has made: in the small client there is no framework to make one."""

import logging
from dataclasses import replace
from pathlib import Path

from harness.errors import ConversionError
from harness.machine import paths
from harness.machine.extras import how_to_install, lacking
from harness.models import get_variant, manifest
from harness.models.manifest import AUTO, GOLDEN_NAME, MANIFEST_NAME
from harness.models.spec import Variant
from harness.run.config.run_config import RunConfig

logger = logging.getLogger(__name__)


def lacks_frameworks(config: RunConfig) -> bool:
    """Whether something is missing here that the platform's entries are made and compared with."""
    return bool(lacking(config.platform.facts.tools))


def made_elsewhere(config: RunConfig) -> Path:
    """The entry as another machine has made it and compared it with its source.

    Of it the manifest and the stored answers are enough.

    Raises:
        ConversionError: it is not there, or not what is asked for.
    """
    missing, *_ = lacking(config.platform.facts.tools)
    how = how_to_install(missing, config.platform.facts.triton_backend)
    if config.choice.is_user_file:
        raise ConversionError(f"{config.choice.weights} cannot be made into an entry here: {how}")
    entry = config.spec.entry_name(config.platform)
    folder = paths.MODEL_REPOSITORY / entry
    if not all((folder / name).is_file() for name in (MANIFEST_NAME, GOLDEN_NAME)):
        raise ConversionError(
            f"{entry} cannot be made here: copy {MANIFEST_NAME} and {GOLDEN_NAME} of its folder in the model "
            f"repository where it was made to {folder}; or {how}"
        )
    found = manifest.load(folder)
    if (found.entry, found.variant) != (entry, _declared(config)):
        raise ConversionError(f"{folder} was made by another version, or with other options; or {how}")
    if config.choice.weights not in (AUTO, found.weights):
        raise ConversionError(f"{folder} was made from {found.weights} weights, not {config.choice.weights}")
    logger.info("%s is asked as it was made elsewhere (%s weights)", entry, found.weights)
    return folder


def _declared(config: RunConfig) -> Variant:
    declared = get_variant(config.spec, config.platform)
    if declared.detection is None or config.choice.nms is None:
        return declared
    return replace(declared, detection=replace(declared.detection, nms=config.choice.nms))

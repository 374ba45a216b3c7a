"""What is served: models, platforms, recipes, entries.

Adding a model is one module here and one line below.
"""

from collections.abc import Mapping
from types import MappingProxyType

from harness.errors import ConfigError, nearest
from harness.models.declared.mobilenet import MOBILENET
from harness.models.declared.resnet50 import RESNET50
from harness.models.declared.ssd_mobilenet import SSD_MOBILENET
from harness.models.declared.ssd_resnet34 import SSD_RESNET34
from harness.models.platforms import Platform
from harness.models.spec import ModelSpec, Variant

MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {spec.name: spec for spec in (RESNET50, MOBILENET, SSD_MOBILENET, SSD_RESNET34)}
)


def get_model(name: str) -> ModelSpec:
    """Look a model up by its name or an alias.

    Raises:
        ConfigError: no such model; names those that exist.
    """
    for spec in MODELS.values():
        if name == spec.name or name in spec.aliases:
            return spec
    known = [alias for spec in MODELS.values() for alias in (spec.name, *spec.aliases)]
    raise ConfigError(f"unknown model {name!r}{nearest(name, known)}; models: {', '.join(MODELS)}")


def get_platform(name: str) -> Platform:
    """Look a platform up by its word.

    Raises:
        ConfigError: no such platform; names those that exist.
    """
    if name in list(Platform):
        return Platform(name)
    known = [platform.value for platform in Platform]
    raise ConfigError(f"unknown platform {name!r}{nearest(name, known)}; platforms: {', '.join(known)}")


def get_variant(spec: ModelSpec, platform: Platform) -> Variant:
    """How `platform` serves the model.

    Raises:
        ConfigError: this model has no such variant; names those it has.
    """
    if platform in spec.variants:
        return spec.variants[platform]
    raise ConfigError(f"{spec.name} is not available on {platform}; it is on: {', '.join(spec.variants)}")

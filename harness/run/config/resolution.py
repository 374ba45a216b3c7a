"""What was given becomes a RunConfig: the command line counts before the file, that before the profile.

What none of them says is the model's or the round's own, or a default. `RunConfig.provenance` tells which.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError
from harness.machine import paths
from harness.models import MODELS, get_model, get_variant
from harness.models.platforms import Platform, ending_of
from harness.models.recipes import RECIPES, has_same_arithmetic
from harness.models.spec import ModelSpec
from harness.run.config import config_file, values
from harness.run.config.checks import check, no_effect
from harness.run.config.layers import Layer, Layers
from harness.run.config.options import OPTIONS, Kind
from harness.run.config.run_config import SYNTHETIC, RunConfig, RunMode, Target
from harness.run.config.scenario import overlong
from harness.run.config.values import one_of
from harness.run.mlperf.reference import (
    PLATFORM_OF_SUFFIX,
    PROFILES,
    Profile,
    is_model_file,
    model_of_file,
    platform_of,
)
from harness.run.mlperf.rounds import Scenario

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Invocation:
    """All that one command line asks for."""

    configs: tuple[RunConfig, ...]
    is_sweep: bool
    is_dry_run: bool


def invocation(given: Mapping[str, Any]) -> Invocation:
    """Resolve a command line: one request, or with --all those of a sweep.

    Raises:
        ConfigError: as `resolve`.
    """
    layers = _given(given)
    is_sweep = bool(layers.find("all"))
    configs = _sweep(layers) if is_sweep else [_resolve(layers)]
    return Invocation(tuple(configs), is_sweep, bool(layers.find("dry_run")))


def resolve(given: Mapping[str, Any]) -> RunConfig:
    """Check what was given and fill the rest in.

    Args:
        given: of the command line, by the option's name; None where it was not given.

    Raises:
        ConfigError: an unknown word, an impossible value, or options that exclude each other.
    """
    return _resolve(_given(given))


def sweep(given: Mapping[str, Any]) -> list[RunConfig]:
    """Resolve a request for every model on every platform, or for those of the model or platform given.

    Raises:
        ConfigError: as `resolve`; before anything is run.
    """
    return _sweep(_given(given))


def _sweep(layers: Layers) -> list[RunConfig]:
    model, platform = layers.find("model"), layers.find("platform")
    _check_sweep(layers, is_one_model=model is not None)
    specs = list(MODELS.values()) if model is None else [get_model(model)]
    wanted = list(Platform) if platform is None else [platform_of(platform)]
    if model is not None and platform is not None:
        get_variant(specs[0], wanted[0])
    # No folder has the images of both tasks.
    forced = {"dataset": SYNTHETIC} if model is None else {}
    return [
        _resolve(layers.under(Layer("--all", {**forced, "model": spec.name, "platform": served_by.value})))
        for spec in specs
        for served_by in spec.variants
        if served_by in wanted
    ]


def _given(given: Mapping[str, Any]) -> Layers:
    """The command line, and the file that it names."""
    layers = [Layer(COMMAND_LINE, given)]
    if given.get("config") == "":
        raise ConfigError("--config is empty; leave it out, or name a file")
    if given.get("config") is not None:
        file = paths.absolute(given["config"])
        layers.append(Layer(file.name, config_file.read(file)))
    found = Layers(tuple(layers))
    for option in OPTIONS.values():
        if option.kind == Kind.REFUSED and found.find(option.name) is not None:
            raise ConfigError(f"{option.flags[0]} is refused: {option.help}")
    return found


def _check_sweep(layers: Layers, *, is_one_model: bool) -> None:
    """Refuse what fits only one model, or only one kind of model."""
    of_one = ("profile", "model_name", "inputs", "outputs", "data_format", "served_name", "served_version")
    of_a_kind = ("dataset", "dataset_path", "dataset_list", "nms", "save_images")
    used = [name for name in of_one if layers.find(name) is not None]
    if str(layers.find("output")).endswith(".json"):
        raise ConfigError("--all runs several models: --output takes a folder then, not a file")
    if used:
        raise ConfigError(f"--all runs several models: {OPTIONS[used[0]].flags[0]} is of one; leave it out")
    used = [name for name in of_a_kind if layers.find(name) not in (None, SYNTHETIC)]
    if used and not is_one_model:
        raise ConfigError(
            "--all runs classifiers and detectors, on synthetic images: add --model to use "
            f"{OPTIONS[used[0]].flags[0]}"
        )


def _resolve(given: Layers) -> RunConfig:
    word = given.find("profile")
    profile = PROFILES[one_of("profile", word, PROFILES)] if word is not None else None
    target = _target(given, profile)
    layers = given.over(*_lower_layers(given, profile, target))
    config = RunConfig.resolve(layers, target)
    check(config)
    return dataclasses.replace(config, notes=(*no_effect(config), *overlong(config)))


def _target(given: Layers, profile: Profile | None) -> Target:
    """Find model and platform.

    Raises:
        ConfigError: one is missing or unknown, or names contradict each other.
    """
    word = given.find("model")
    file = values.path(word) if word and is_model_file(word) else None
    key = "model" if file is None else "model_name"
    layers = given
    if profile is not None:
        words = {key: profile.model or None, "platform": profile.platform.value}
        layers = layers.over(Layer(f"--profile {given.find('profile')}", words))
    if file is not None:
        by_suffix = PLATFORM_OF_SUFFIX.get(ending_of(file))
        words = {key: model_of_file(file) or None, "platform": by_suffix and by_suffix.value}
        layers = layers.over(Layer("name of the file", words))
    name = layers.take(key)
    if not name and file is None:
        key = "model_name"
        name = layers.take(key)
    if not name:
        raise ConfigError(
            "--model is missing: which model to run; see --help"
            if file is None
            else f"--model {word} is a file: say which model it is with --model-name ({', '.join(MODELS)})"
        )
    spec, platform_word = get_model(str(name)), layers.take("platform")
    if not platform_word:
        raise ConfigError("--platform is missing: which framework serves it; see --help")
    platform = platform_of(str(platform_word))
    get_variant(spec, platform)
    _check_names(spec, given, profile)
    origins = {"model": layers.provenance[key], "platform": layers.provenance["platform"]}
    return Target(spec, platform, file, origins)


def _check_names(spec: ModelSpec, given: Layers, profile: Profile | None) -> None:
    """Refuse names of two models: one of them is a mistake."""
    others = {f"--profile {given.find('profile')}": profile.model if profile else ""}
    others["--model-name"] = given.find("model_name") or ""
    for option, name in others.items():
        if name and get_model(name) != spec:
            raise ConfigError(f"{option} is of {get_model(name).name}, not of {spec.name}: leave one out")


def _lower_layers(given: Layers, profile: Profile | None, target: Target) -> list[Layer]:
    """What counts after the command line and the file."""
    found = []
    if given.find("quick"):
        found.append(Layer("--quick", _quick(target.spec)))
    if given.find("find_peak_performance"):
        found.append(Layer("--find-peak-performance", {"mode": RunMode.FIND_PEAK.value}))
    variant = target.spec.variants[target.platform]
    # A profile's data set is how images are preprocessed: without images, or on another platform, it is not.
    has_images = given.find("dataset_path") or paths.data_dir()
    recipe = RECIPES.get(profile.dataset) if profile and has_images else None
    if recipe and has_same_arithmetic(recipe, variant.preprocess):
        found.append(Layer(f"--profile {given.find('profile')}", {"dataset": recipe.name}))
    return found


def _quick(spec: ModelSpec) -> dict[str, Any]:
    """What --quick sets where nothing else is given: every scenario for a moment, each with accuracy."""
    return {"scenario": ",".join(Scenario), "accuracy": True, "count": spec.quick_sample_count}

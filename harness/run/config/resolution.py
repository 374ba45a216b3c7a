"""What was given becomes a RunConfig: the command line counts before the file, that before the profile.

What none of them says is the model's or the round's own, or a default. `RunConfig.provenance` tells which.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.machine import paths
from harness.models import MODELS, get_model, get_variant
from harness.models.manifest import OFFICIAL, SEEDED
from harness.models.model_config import DEVICES
from harness.models.platforms import Platform
from harness.models.recipes import RECIPES, has_same_arithmetic
from harness.models.spec import Layout, ModelSpec, Nms, Precision
from harness.run.config import config_file, values
from harness.run.config.checks import check, no_effect
from harness.run.config.options import OPTIONS, Kind
from harness.run.config.run_config import AUTO, DATASETS, SYNTHETIC, TRANSPORTS, RunConfig, RunMode
from harness.run.config.values import one_of, positive
from harness.run.mlperf import user_conf
from harness.run.mlperf.reference import (
    PLATFORM_OF_SUFFIX,
    PROFILES,
    Profile,
    is_model_file,
    is_published,
    model_of_file,
    platform_of,
)
from harness.run.mlperf.rounds import LATEST_ROUND, Scenario, get_round

COMMAND_LINE = "command line"
_MOST_PROCESSES = 64
_MOST_IN_FLIGHT = 65536


@dataclass(frozen=True)
class _Layer:
    """One place that values come from."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class _Layers:
    """All of them, the first that has a value counting; remembers where each that was taken came from."""

    layers: tuple[_Layer, ...]
    provenance: dict[str, str] = field(default_factory=dict)

    def over(self, *more: _Layer) -> "_Layers":
        return _Layers((*self.layers, *more))

    def under(self, first: _Layer) -> "_Layers":
        return _Layers((first, *self.layers))

    def find(self, name: str) -> Any:
        """The value that counts, None where there is none."""
        return self._find(name)[0]

    def take(self, name: str, default: Any = None, origin: str = "default") -> Any:
        """The value that counts, or the default; remembers which."""
        value, found_in = self._find(name)
        if value == "" and name not in ("model", "platform"):
            raise ConfigError(f"--{name.replace('_', '-')} is empty; leave it out, or give it a value")
        self.provenance[name] = origin if value is None else found_in
        return default if value is None else value

    def _find(self, name: str) -> tuple[Any, str]:
        for layer in self.layers:
            if layer.values.get(name) is not None:
                return layer.values[name], layer.origin
        return None, ""


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
    configs = sweep(given) if is_sweep else [resolve(given)]
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
    layers = _given(given)
    model, platform = layers.find("model"), layers.find("platform")
    _check_sweep(layers, is_one_model=model is not None)
    specs = list(MODELS.values()) if model is None else [get_model(model)]
    wanted = list(Platform) if platform is None else [platform_of(platform)]
    if model is not None and platform is not None:
        get_variant(specs[0], wanted[0])
    # No folder has the images of both tasks.
    forced = {"dataset": SYNTHETIC} if model is None else {}
    return [
        _resolve(layers.under(_Layer("--all", {**forced, "model": spec.name, "platform": served_by.value})))
        for spec in specs
        for served_by in spec.variants
        if served_by in wanted
    ]


def _given(given: Mapping[str, Any]) -> _Layers:
    """The command line, and the file that it names."""
    layers = [_Layer(COMMAND_LINE, given)]
    if given.get("config") == "":
        raise ConfigError("--config is empty; leave it out, or name a file")
    if given.get("config") is not None:
        file = paths.absolute(given["config"])
        layers.append(_Layer(file.name, config_file.read(file)))
    found = _Layers(tuple(layers))
    for option in OPTIONS.values():
        if option.kind == Kind.REFUSED and found.find(option.name) is not None:
            raise ConfigError(f"{option.flags[0]} is refused: {option.help}")
    return found


def _check_sweep(layers: _Layers, *, is_one_model: bool) -> None:
    """Refuse what fits only one model, or only one kind of model."""
    of_one = ("profile", "model_name", "inputs", "outputs", "data_format")
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


def _resolve(given: _Layers) -> RunConfig:
    word = given.find("profile")
    profile = PROFILES[one_of("profile", word, PROFILES)] if word is not None else None
    target = _target(given, profile)
    layers = given.over(*_lower_layers(given, profile, target))
    provenance = layers.provenance
    provenance.update(target.provenance)
    config = RunConfig(
        model=target.spec.name,
        platform=target.platform,
        **_request(layers),
        **_model(layers, target),
        **_data(layers),
        **_rules(layers, target.spec),
        **_server(layers),
        **_output(layers),
        provenance=provenance,
    )
    check(config)
    return dataclasses.replace(config, notes=no_effect(config))


@dataclass(frozen=True)
class _Target:
    """Which model on which platform, and of which file."""

    spec: ModelSpec
    platform: Platform
    file: Path | None
    provenance: Mapping[str, str]


def _target(given: _Layers, profile: Profile | None) -> _Target:
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
        layers = layers.over(_Layer(f"--profile {given.find('profile')}", words))
    if file is not None:
        by_suffix = PLATFORM_OF_SUFFIX.get(file.suffix)
        words = {key: model_of_file(file) or None, "platform": by_suffix and by_suffix.value}
        layers = layers.over(_Layer("name of the file", words))
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
    return _Target(spec, platform, file, origins)


def _check_names(spec: ModelSpec, given: _Layers, profile: Profile | None) -> None:
    """Refuse names of two models: one of them is a mistake."""
    others = {f"--profile {given.find('profile')}": profile.model if profile else ""}
    others["--model-name"] = given.find("model_name") or ""
    for option, name in others.items():
        if name and get_model(name) != spec:
            raise ConfigError(f"{option} is of {get_model(name).name}, not of {spec.name}: leave one out")


def _lower_layers(given: _Layers, profile: Profile | None, target: _Target) -> list[_Layer]:
    """What counts after the command line and the file."""
    found = []
    if given.find("quick"):
        found.append(_Layer("--quick", _quick(target.spec)))
    if given.find("find_peak_performance"):
        found.append(_Layer("--find-peak-performance", {"mode": RunMode.FIND_PEAK.value}))
    variant = target.spec.variants[target.platform]
    # A profile's data set is how images are preprocessed: without images, or on another platform, it is not.
    has_images = given.find("dataset_path") or paths.data_dir()
    recipe = RECIPES.get(profile.dataset) if profile and has_images else None
    if recipe and has_same_arithmetic(recipe, variant.preprocess):
        found.append(_Layer(f"--profile {given.find('profile')}", {"dataset": recipe.name}))
    return found


def _quick(spec: ModelSpec) -> dict[str, Any]:
    """What --quick sets where nothing else is given: every scenario for a moment, each with accuracy."""
    return {"scenario": ",".join(Scenario), "accuracy": True, "count": spec.quick_sample_count}


def _request(layers: _Layers) -> dict[str, Any]:
    mode = one_of("mode", layers.take("mode", RunMode.PERFORMANCE.value), RunMode)
    if layers.take("find_peak_performance") and mode != RunMode.FIND_PEAK:
        raise ConfigError(f"--find-peak-performance and --mode {mode} exclude each other: leave one out")
    return {
        "profile": layers.take("profile", ""),
        "scenarios": values.scenarios(layers.take("scenario", Scenario.SINGLE_STREAM.value)),
        "mode": RunMode(mode),
        "accuracy": layers.take("accuracy", False),
        "is_quick": bool(layers.take("quick")),
    }


def _model(layers: _Layers, target: _Target) -> dict[str, Any]:
    layout = layers.take("data_format", None, "model")
    nms = layers.take("nms", None, "model")
    precision = layers.take("precision", Precision.AUTO.value)
    return {
        "weights": _weights(layers, target),
        "nms": None if nms is None else Nms(one_of("nms", nms, Nms)),
        "precision": Precision(one_of("precision", precision, Precision)),
        "inputs": values.names(layers.take("inputs", None, "model")),
        "outputs": values.names(layers.take("outputs", None, "model")),
        "data_format": None if layout is None else Layout(one_of("data-format", layout, Layout)),
    }


def _weights(layers: _Layers, target: _Target) -> str:
    word = layers.take("weights", AUTO)
    if target.file is None:
        return _weights_word("weights", word)
    if layers.find("weights") is not None:
        raise ConfigError(f"--model {target.file} and --weights name two files: leave one out")
    layers.provenance["weights"] = "--model"
    if is_published(target.file, target.spec, target.platform):
        return OFFICIAL
    return _weights_word("model", str(target.file))


def _weights_word(option: str, value: str) -> str:
    if value in (AUTO, SEEDED, OFFICIAL):
        return value
    path = paths.absolute(value)
    if not path.exists():
        names = f" (nor one of {AUTO}, {SEEDED}, {OFFICIAL})" if option == "weights" else ""
        raise ConfigError(f"--{option} {value}: no such file{names}")
    return str(path)


def _data(layers: _Layers) -> dict[str, Any]:
    data_dir = paths.data_dir()
    cache = layers.take("cache", paths.CACHE_DIR)
    return {
        "dataset": one_of("dataset", layers.take("dataset", AUTO), DATASETS),
        "dataset_path": values.path(
            layers.take("dataset_path", data_dir, "DATA_DIR" if data_dir else "default")
        ),
        "dataset_list": values.path(layers.take("dataset_list")),
        # The reference's --cache is a number that nothing reads; 0, its only value in use, is our default.
        "cache": paths.CACHE_DIR if str(cache) == "0" else values.path(cache),
    }


def _rules(layers: _Layers, spec: ModelSpec) -> dict[str, Any]:
    conf = values.path(layers.take("user_conf"))
    is_official = layers.find("round") is not None

    def number(name: str, kind: type[int] | type[float], origin: str) -> Any:
        return positive(name.replace("_", "-"), layers.take(name, None, origin), kind)

    return {
        "round": get_round(layers.take("round", LATEST_ROUND)).name,
        "is_official": is_official,
        "count": number("count", int, "default"),
        "time_s": number("time", float, "round"),
        "qps": number("qps", float, "calibrated"),
        "max_latency_s": values.latencies(layers.take("max_latency", None, "round")),
        "queries_single": number("queries_single", int, "round"),
        "queries_multi": number("queries_multi", int, "round"),
        "queries_offline": number("queries_offline", int, "round"),
        "samples_per_query": number("samples_per_query", int, "round"),
        "performance_sample_count": number("performance_sample_count", int, "round"),
        "user_conf": user_conf.read(conf, spec) if conf else user_conf.UserConf(),
    }


def _server(layers: _Layers) -> dict[str, Any]:
    urls, origin = paths.server_urls(), "TRITON_URL"
    in_flight = layers.take("in_flight", None, "measured, or by rule")
    processes = layers.take("client_processes", 1)
    device = one_of("device", layers.take("device", AUTO), DEVICES)
    threads = layers.take("threads", None, "the framework's" if device == "gpu" else "number of CPUs")
    return {
        "urls": values.urls(layers.take("url", urls, origin if urls else "default")),
        "device": device,
        "threads": positive("threads", threads, int),
        "max_batchsize": positive("max-batchsize", layers.take("max_batchsize", None, "model"), int),
        "transport": one_of("transport", layers.take("transport", AUTO), TRANSPORTS),
        "in_flight": positive("in-flight", in_flight, int, _MOST_IN_FLIGHT),
        "client_processes": positive("client-processes", processes, int, _MOST_PROCESSES),
    }


def _output(layers: _Layers) -> dict[str, Any]:
    output = paths.absolute(layers.take("output", paths.RESULTS_DIR))
    # The reference of 2019 wrote a file, today's a folder.
    is_file = output.suffix == ".json" and not output.is_dir()
    is_debug, is_quiet = layers.take("debug", False), layers.take("quiet", False)
    if is_debug and is_quiet:
        raise ConfigError("--debug and --quiet exclude each other: leave one out")
    return {
        "output": paths.RESULTS_DIR if is_file else output,
        "output_file": output if is_file else None,
        "save_images": positive("save-images", layers.take("save_images"), int) or 0,
        "debug": is_debug,
        "quiet": is_quiet,
    }

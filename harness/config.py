"""What a run is asked to do: resolved once, with where each value came from, and never changed later."""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness import paths
from harness.errors import ConfigError
from harness.manifest import OFFICIAL, SEEDED
from harness.model_config import DEVICES
from harness.models import MODELS, get_model, get_platform, get_variant
from harness.models.recipes import RECIPES, has_same_arithmetic, is_for
from harness.models.spec import ModelSpec, Nms, Platform, Precision, Task
from harness.rounds import LATEST_ROUND, Scenario, get_round

SYNTHETIC = "synthetic"
AUTO = "auto"
COCO = "coco"
"""In whatever size the model takes."""
DATASETS = (AUTO, *RECIPES, COCO, SYNTHETIC)
_LARGEST = 1_000_000_000
"""Of any count, rate or time: more overflows what LoadGen and gRPC count in."""
_MOST_PROCESSES = 64
_MOST_IN_FLIGHT = 65536
_URL = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_THIS_HOST = ("localhost", "127.0.0.1", "[::1]")
TRANSPORTS = (AUTO, "shm", "grpc")


class RunMode(StrEnum):
    """What to measure in each scenario."""

    PERFORMANCE = "Performance"
    ACCURACY = "Accuracy"
    SUBMISSION = "Submission"
    """Performance, then accuracy, as separate tests: LoadGen's own SubmissionRun mixes their logs."""
    FIND_PEAK = "FindPeakPerformance"


@dataclass(frozen=True)
class RunConfig:
    """The resolved request. None: not given, so that the model's or the round's own value holds."""

    model: str
    platform: Platform
    scenarios: tuple[Scenario, ...]
    mode: RunMode
    accuracy: bool
    dataset: str
    dataset_path: Path | None
    dataset_list: Path | None
    count: int | None
    time_s: float | None
    qps: float | None
    max_latency_s: tuple[float, ...]
    """Server's bounds, each a run of its own; empty for the model's."""
    max_batchsize: int | None
    threads: int | None
    device: str
    transport: str
    urls: tuple[str, ...]
    """gRPC addresses of servers; empty for the running one, or one of our own."""
    client_processes: int
    """How many processes send the requests; one sends them itself."""
    in_flight: int | None
    """Most requests under way at each server."""
    weights: str
    """`auto`, `seeded`, `official`, or the path of a user's own file."""
    nms: Nms | None
    precision: Precision
    save_images: int
    """How many pictures with their boxes to write; 0 for none."""
    output: Path
    cache: Path
    round: str
    is_official: bool
    """A round was asked for, so nothing may be shortened."""
    is_quick: bool
    """Only whether the answers are right is asked; too few queries for LoadGen's statistics."""
    debug: bool
    provenance: Mapping[str, str]
    """Where each value came from, by field."""

    @property
    def spec(self) -> ModelSpec:
        """The model's declaration."""
        return get_model(self.model)

    @property
    def is_user_file(self) -> bool:
        """Whether the weights are a file of the user's own."""
        return self.weights not in (AUTO, SEEDED, OFFICIAL)

    def to_json(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def resolve(given: Mapping[str, Any]) -> RunConfig:
    """Check what was given on the command line and fill the rest in.

    Args:
        given: option by field name; None where it was not given.

    Raises:
        ConfigError: an unknown word, an impossible value, or options that exclude each other.
    """
    provenance: dict[str, str] = {}
    spec = get_model(_required(given, "model", "which model to run"))
    is_quick = bool(given.get("quick"))
    quick = _quick(spec) if is_quick else {}

    def take(name: str, default: Any, origin: str = "default") -> Any:
        if given.get(name) == "":
            raise ConfigError(f"--{name.replace('_', '-')} is empty; leave it out, or give it a value")
        if given.get(name) is not None:
            provenance[name] = "command line"
            return given[name]
        provenance[name] = "--quick" if name in quick else origin
        return quick.get(name, default)

    platform = get_platform(_required(given, "platform", "which framework serves it"))
    get_variant(spec, platform)
    provenance.update(model="command line", platform="command line")
    data_dir = paths.data_dir()
    config = RunConfig(
        model=spec.name,
        platform=platform,
        scenarios=_scenarios(take("scenario", Scenario.SINGLE_STREAM.value)),
        mode=RunMode(_one_of("mode", take("mode", RunMode.PERFORMANCE.value), RunMode)),
        accuracy=take("accuracy", False),
        dataset=_one_of("dataset", take("dataset", AUTO), DATASETS),
        dataset_path=_path(take("dataset_path", data_dir, "DATA_DIR" if data_dir else "default")),
        dataset_list=_path(take("dataset_list", None)),
        count=_positive("count", take("count", None), int),
        time_s=_positive("time", take("time", None), float),
        qps=_positive("qps", take("qps", None), float),
        max_latency_s=_latencies(take("max_latency", None, "model")),
        max_batchsize=_positive("max-batchsize", take("max_batchsize", None, "model"), int),
        threads=_positive("threads", take("threads", None, "number of CPUs"), int),
        device=_one_of("device", take("device", AUTO), DEVICES),
        transport=_one_of("transport", take("transport", AUTO), TRANSPORTS),
        urls=_urls(take("url", None)),
        client_processes=_positive("client-processes", take("client_processes", 1), int, _MOST_PROCESSES),
        in_flight=_positive("in-flight", take("in_flight", None, "model"), int, _MOST_IN_FLIGHT),
        weights=_weights(take("weights", AUTO)),
        nms=_nms(take("nms", None, "model")),
        precision=Precision(_one_of("precision", take("precision", Precision.AUTO.value), Precision)),
        save_images=_positive("save-images", take("save_images", None), int) or 0,
        output=Path(take("output", paths.RESULTS_DIR)).expanduser().absolute(),
        cache=_cache(take("cache", paths.CACHE_DIR)),
        round=get_round(take("round", LATEST_ROUND)).name,
        is_official=given.get("round") is not None,
        is_quick=is_quick,
        debug=take("debug", False),
        provenance=provenance,
    )
    _check_combinations(config)
    return config


def sweep(given: Mapping[str, Any]) -> list[RunConfig]:
    """Resolve a request for every model on every platform, or for those of the model or platform given.

    Raises:
        ConfigError: as `resolve`; before anything is run.
    """
    model, platform = given.get("model"), given.get("platform")
    if model is None:
        _check_sweep(given)
        # No folder has the images of both tasks.
        given = {**given, "dataset": SYNTHETIC}
    specs = list(MODELS.values()) if model is None else [get_model(model)]
    wanted = list(Platform) if platform is None else [get_platform(platform)]
    if model is not None and platform is not None:
        get_variant(specs[0], wanted[0])
    return [
        resolve({**given, "model": spec.name, "platform": served_by.value})
        for spec in specs
        for served_by in spec.variants
        if served_by in wanted
    ]


def _check_sweep(given: Mapping[str, Any]) -> None:
    """Refuse what fits only one kind of model."""
    options = ("dataset", "dataset_path", "dataset_list", "nms", "save_images")
    used = [f"--{name.replace('_', '-')}" for name in options if given.get(name) not in (None, SYNTHETIC)]
    if used:
        raise ConfigError(
            f"--all runs classifiers and detectors, on synthetic images: add --model to use {used[0]}"
        )


def _quick(spec: ModelSpec) -> dict[str, Any]:
    """What --quick sets where nothing else is given: every scenario for a moment, each with accuracy."""
    return {"scenario": ",".join(Scenario), "accuracy": True, "count": spec.quick_sample_count}


def _check_combinations(config: RunConfig) -> None:
    if config.is_quick:
        _check_quick(config)
    shortened = {
        "--count": config.count,
        "--time": config.time_s,
        "--max-latency": config.max_latency_s or None,
    }
    used = [option for option, value in shortened.items() if value is not None]
    wants_official = "--round" if config.is_official else ""
    if config.mode == RunMode.SUBMISSION:
        wants_official = "--mode Submission"
    if wants_official and used:
        raise ConfigError(
            f"{wants_official} runs by MLPerf's rules and takes no {', '.join(used)}; "
            f"leave {'it' if len(used) == 1 else 'them'} out, or run without {wants_official}"
        )
    if config.mode == RunMode.FIND_PEAK and config.scenarios != (Scenario.SERVER,):
        raise ConfigError(
            "--mode FindPeakPerformance searches the highest Server rate: use --scenario Server"
        )
    if config.dataset == SYNTHETIC and config.provenance["dataset_path"] == "command line":
        raise ConfigError("--dataset synthetic draws its own images and takes no --dataset-path")
    if config.dataset_list and not config.dataset_path:
        raise ConfigError("--dataset-list names the labels of the images in --dataset-path, which is missing")
    if config.dataset in (*RECIPES, COCO) and not config.dataset_path:
        labels = "annotations" if config.spec.task == Task.DETECTION else "val_map.txt"
        raise ConfigError(
            f"--dataset {config.dataset} needs --dataset-path DIR (or DATA_DIR) with the images and "
            f"{labels}; --dataset synthetic needs no data"
        )
    if config.max_latency_s and Scenario.SERVER not in config.scenarios:
        raise ConfigError("--max-latency is Server's bound: add --scenario Server, or leave it out")
    if 1 < config.client_processes < len(config.urls):
        raise ConfigError(
            f"--client-processes {config.client_processes} is impossible with {len(config.urls)} servers: "
            "each process asks one"
        )
    _check_model_options(config)


def _check_quick(config: RunConfig) -> None:
    excluded = {
        "--round": config.is_official,
        "--time": config.time_s is not None,
        f"--mode {config.mode}": config.mode != RunMode.PERFORMANCE,
    }
    used = [option for option, is_used in excluded.items() if is_used]
    if used:
        raise ConfigError(f"--quick asks a few samples of every scenario and takes no {', '.join(used)}")


def _check_model_options(config: RunConfig) -> None:
    """See that the data and the options are for a model of this kind."""
    variant = get_variant(config.spec, config.platform)
    what = f"{config.model} on {config.platform}"
    recipe = RECIPES.get(config.dataset)
    is_detector = config.spec.task == Task.DETECTION
    if (recipe and not is_for(config.spec.task, recipe)) or (config.dataset == COCO and not is_detector):
        kind = "detector" if is_detector else "classifier"
        raise ConfigError(f"{what} is a {kind}: --dataset {config.dataset} is not for these")
    if not config.is_user_file and recipe and not has_same_arithmetic(recipe, variant.preprocess):
        raise ConfigError(
            f"{what} is preprocessed as {variant.preprocess.name}: "
            f"--dataset {config.dataset} would feed it other pixel values"
        )
    if config.save_images and not is_detector:
        raise ConfigError(f"{what} is a classifier: --save-images draws the boxes of detectors")
    if config.nms and config.nms not in variant.nms_choices:
        raise ConfigError(f"{what} has no choice of NMS: --nms is for ssd-resnet34 on pytorch")
    if config.precision != Precision.AUTO and not config.platform.chooses_precision:
        choosing = ", ".join(platform for platform in Platform if platform.chooses_precision)
        raise ConfigError(f"{what} has no choice of precision: --precision is for {choosing}")


def _required(given: Mapping[str, Any], name: str, meaning: str) -> str:
    value = given.get(name)
    if not value:
        raise ConfigError(f"--{name} is missing: {meaning}; see --help")
    return str(value)


def _one_of(option: str, word: str, known: Iterable[str]) -> str:
    """Match a word, whatever its case, or suggest the nearest."""
    words = [str(item) for item in known]
    by_lower = {item.lower(): item for item in words}
    if word.lower() in by_lower:
        return by_lower[word.lower()]
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    hint = f" (did you mean {by_lower[close[0]]}?)" if close else ""
    raise ConfigError(f"--{option} {word!r} is unknown{hint}; choices: {', '.join(words)}")


def _scenarios(text: str) -> tuple[Scenario, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError(f"--scenario is empty; choices: {', '.join(Scenario)}")
    return tuple(dict.fromkeys(Scenario(_one_of("scenario", word, Scenario)) for word in words))


def _positive(option: str, value: Any, kind: type[int] | type[float], most: int = _LARGEST) -> Any:
    if value is None:
        return None
    try:
        number = kind(value)
    except ValueError:
        number = kind(0)
    if not 0 < number <= most:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"--{option} {value} is impossible: it takes {what} above 0, and up to {most}")
    return number


def _latencies(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    return tuple(_positive("max-latency", part, float) for part in text.split(","))


def _urls(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    urls = tuple(part.strip() for part in text.split(","))
    servers: dict[tuple[str, int], str] = {}
    for url in urls:
        match = _URL.fullmatch(url)
        if not match or not 0 < int(match[2]) < 65536:
            raise ConfigError(
                f"--url {url!r} is not HOST:PORT (the gRPC port, 8001 by default; without http://)"
            )
        host = "localhost" if match[1] in _THIS_HOST else match[1].lower()
        server = host, int(match[2])
        if server in servers:
            raise ConfigError(f"--url names one server twice: {servers[server]} and {url}")
        servers[server] = url
    return urls


def _nms(word: str | None) -> Nms | None:
    return None if word is None else Nms(_one_of("nms", word, Nms))


def _path(value: Any) -> Path | None:
    return Path(value).expanduser().absolute() if value is not None else None


def _weights(value: str) -> str:
    if value in (AUTO, SEEDED, OFFICIAL):
        return value
    path = Path(value).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"--weights {value}: no such file (nor one of {AUTO}, {SEEDED}, {OFFICIAL})")
    return str(path)


def _cache(value: Any) -> Path:
    # The reference's --cache is a number that nothing reads; 0, its only value in use, is our default.
    return paths.CACHE_DIR if str(value) == "0" else Path(value).expanduser().absolute()


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))

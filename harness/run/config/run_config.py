"""What a run is asked to do: resolved once (`harness.run.config.resolution`), and never changed later.

Each group of options takes its own values from the layers. None: not given, so that the model's or the
round's own value holds.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from harness.errors import ConfigError
from harness.machine import paths
from harness.models import get_model, live_config, own_recipes
from harness.models.manifest import OFFICIAL, WeightsWord, is_user_file
from harness.models.model_config import DEVICES
from harness.models.platforms import Platform
from harness.models.recipes import RECIPES
from harness.models.spec import BOX_FORMS, LARGEST_BATCH, Layout, ModelSpec, Nms, Numbering, Precision
from harness.run.config import values
from harness.run.config.layers import Layers
from harness.run.config.values import duration, number, one_of, positive
from harness.run.mlperf import user_conf
from harness.run.mlperf.reference import is_published
from harness.run.mlperf.rounds import LATEST_ROUND, Scenario, get_round
from harness.run.mlperf.user_conf import UserConf
from harness.triton.address import Address, Header, Tls, parse_headers
from harness.triton.rpc import Rpc

SYNTHETIC = "synthetic"
AUTO = "auto"
COCO = "coco"
"""In whatever size the model takes."""
DATASETS = (AUTO, *RECIPES, COCO, SYNTHETIC)
TRANSPORTS = (AUTO, "shm", "grpc")
KEEP, OURS = "keep", "ours"
"""Whose settings a model is measured with: those that the server has, or those of the run."""
_MOST_PROCESSES = 64
_MOST_IN_FLIGHT = 65536
_LONGEST_LABEL = 60
"""So that tables that have it stay readable."""
_MOST_INSTANCES = 1024
_BY_SCENARIO = "measured, or by rule"
"""An origin."""


class RunMode(StrEnum):
    """What to measure in each scenario."""

    PERFORMANCE = "Performance"
    ACCURACY = "Accuracy"
    SUBMISSION = "Submission"
    """Performance, then accuracy, as separate tests: LoadGen's own SubmissionRun mixes their logs."""
    FIND_PEAK = "FindPeakPerformance"


@dataclass(frozen=True)
class Target:
    """Which model on which platform, and of which file."""

    spec: ModelSpec
    platform: Platform
    file: Path | None
    provenance: Mapping[str, str]


@dataclass(frozen=True)
class Request:
    """What to run."""

    profile: str
    """The reference's word for model and platform; empty where none was given."""
    scenarios: tuple[Scenario, ...]
    mode: RunMode
    accuracy: bool
    is_quick: bool
    """Only whether the answers are right is asked; too few queries for LoadGen's statistics."""

    @classmethod
    def resolve(cls, layers: Layers) -> Self:
        """Take the values.

        Raises:
            ConfigError: an unknown word, or options that exclude each other.
        """
        mode = RunMode(one_of("mode", layers.take("mode", RunMode.PERFORMANCE.value), RunMode))
        if layers.take("find_peak_performance") and mode != RunMode.FIND_PEAK:
            raise ConfigError(f"--find-peak-performance and --mode {mode} exclude each other: leave one out")
        return cls(
            profile=str(layers.take("profile", "")),
            scenarios=values.scenarios(layers.take("scenario", Scenario.SINGLE_STREAM.value)),
            mode=mode,
            accuracy=bool(layers.take("accuracy")),
            is_quick=bool(layers.take("quick")),
        )


@dataclass(frozen=True)
class ModelChoice:
    """Of which file the model is made, and what its tensors should be."""

    weights: str
    """A `WeightsWord`, or the path of a user's own file."""
    nms: Nms | None
    precision: Precision
    tolerance: float | None
    """How far answers may be from the source framework's: `MARGIN` of `harness.answers.precision`, or its
    `BOX_TOLERANCE`; None: as far as rounding goes, or the precision that the server tells."""
    preprocess: str
    """As `harness.models.own_recipes` reads it; empty for the model's own."""
    label_offset: int | None
    classes: Numbering | None
    """Of a user's own detector, where they say it; likewise `boxes`, of `BOX_FORMS` or empty."""
    boxes: str
    inputs: tuple[str, ...]
    """What the user expects the model's tensors to be; empty for no expectation."""
    outputs: tuple[str, ...]
    data_format: Layout | None

    @classmethod
    def resolve(cls, layers: Layers, target: Target) -> Self:
        """Take the values.

        Raises:
            ConfigError: an unknown word, or a file that does not exist.
        """
        layout = layers.take("data_format", None, "model")
        nms = layers.take("nms", None, "model")
        precision = layers.take("precision", Precision.AUTO.value)
        classes = layers.take("classes", None, "model")
        boxes = layers.take("boxes", None, "model")
        return cls(
            weights=_weights(layers, target),
            nms=None if nms is None else Nms(one_of("nms", nms, Nms)),
            precision=Precision(one_of("precision", precision, Precision)),
            tolerance=positive("tolerance", layers.take("tolerance", None, "precision"), float),
            preprocess=_preprocess(layers, target),
            label_offset=_label_offset(layers.take("label_offset", None, "model")),
            classes=None if classes is None else Numbering(one_of("classes", classes, Numbering)),
            boxes="" if boxes is None else one_of("boxes", boxes, BOX_FORMS),
            inputs=values.names(layers.take("inputs", None, "model")),
            outputs=values.names(layers.take("outputs", None, "model")),
            data_format=None if layout is None else Layout(one_of("data-format", layout, Layout)),
        )

    @property
    def is_user_file(self) -> bool:
        """Whether the weights are a file of the user's own."""
        return is_user_file(self.weights)


def _preprocess(layers: Layers, target: Target) -> str:
    text = str(layers.take("preprocess", "", "model"))
    if text:
        own_recipes.parse(text, target.spec.task)
    return text


def _label_offset(value: Any) -> int | None:
    if value is None or str(value).lstrip("+-").isdecimal():
        return None if value is None else int(value)
    raise ConfigError(f"--label-offset {value} is impossible: it takes a whole number, as 0 or -1")


def _weights(layers: Layers, target: Target) -> str:
    word = layers.take("weights", WeightsWord.AUTO.value)
    if target.file is None:
        return _weights_word("weights", word)
    if layers.find("weights") is not None:
        raise ConfigError(f"--model {target.file} and --weights name two files: leave one out")
    layers.provenance["weights"] = "--model"
    layers.given.add("weights")
    if is_published(target.file, target.spec, target.platform):
        return OFFICIAL
    return _weights_word("model", str(target.file))


def _weights_word(option: str, value: str) -> str:
    if not is_user_file(value):
        return value
    path = paths.absolute(value)
    if not path.exists():
        names = f" (nor one of {', '.join(WeightsWord)})" if option == "weights" else ""
        raise ConfigError(f"--{option} {value}: no such file{names}")
    return str(path)


@dataclass(frozen=True)
class Data:
    """Images and labels, and where they are kept once they are samples."""

    dataset: str
    dataset_path: Path | None
    dataset_list: Path | None
    cache: Path

    @classmethod
    def resolve(cls, layers: Layers) -> Self:
        """Take the values.

        Raises:
            ConfigError: an unknown word, or what is no path.
        """
        data_dir = paths.data_dir()
        cache = str(layers.take("cache", paths.CACHE_DIR))
        origin = "DATA_DIR" if data_dir else "default"
        return cls(
            dataset=one_of("dataset", layers.take("dataset", AUTO), DATASETS),
            dataset_path=values.path(layers.take("dataset_path", data_dir, origin)),
            dataset_list=values.path(layers.take("dataset_list")),
            # The reference's --cache is a number that nothing reads; its only value in use is our default.
            cache=paths.CACHE_DIR if cache == "0" else paths.absolute(cache),
        )


@dataclass(frozen=True)
class RuleChanges:
    """Whose rules, and what to run instead of what they say."""

    round: str
    is_official: bool
    """A round was asked for, so nothing may be shortened."""
    count: int | None
    time_s: float | None
    qps: float | None
    max_latency_s: tuple[float, ...]
    """Server's bounds, each a run of its own; empty for the model's."""
    queries_single: int | None
    queries_multi: int | None
    """Of MultiStream, and of Server, as in the reference."""
    queries_offline: int | None
    samples_per_query: int | None
    performance_sample_count: int | None
    no_early_end: bool
    """Of a Server test whose bound is lost: see `ScenarioPlan.ends_early`."""
    user_conf: UserConf

    @classmethod
    def resolve(cls, layers: Layers, spec: ModelSpec) -> Self:
        """Take the values.

        Raises:
            ConfigError: an unknown round, an impossible number, or a user.conf that cannot be used.
        """
        conf = values.path(layers.take("user_conf"))

        def whole(name: str, origin: str = "round") -> int | None:
            return positive(name.replace("_", "-"), layers.take(name, None, origin), int)

        return cls(
            round=get_round(layers.take("round", LATEST_ROUND)).name,
            is_official=layers.find("round") is not None,
            count=whole("count", "default"),
            time_s=duration(layers.take("time", None, "round")),
            qps=positive("qps", layers.take("qps", None, "calibrated"), float),
            max_latency_s=values.latencies(layers.take("max_latency", None, "round")),
            queries_single=whole("queries_single"),
            queries_multi=whole("queries_multi"),
            queries_offline=whole("queries_offline"),
            samples_per_query=whole("samples_per_query"),
            performance_sample_count=whole("performance_sample_count"),
            no_early_end=bool(layers.take("no_early_end")),
            user_conf=user_conf.read(conf, spec) if conf else UserConf(),
        )

    def queries(self, scenario: Scenario) -> int | None:
        """The fewest queries (Offline: samples) that the user asked for in a scenario."""
        return {
            Scenario.SINGLE_STREAM: self.queries_single,
            Scenario.MULTI_STREAM: self.queries_multi,
            Scenario.SERVER: self.queries_multi,
            Scenario.OFFLINE: self.queries_offline,
        }[scenario]


@dataclass(frozen=True)
class ServerChoice:
    """Which server, and how it is set up and asked."""

    urls: tuple[str, ...]
    """gRPC addresses of servers; empty for the running one, or one of our own."""
    metrics_urls: tuple[str, ...]
    """Where the servers' metrics are, in the order of `urls`; empty: where Triton has them by default."""
    device: str
    gpus: tuple[int, ...]
    """Which of the server's GPUs have instances; empty for all."""
    instances: int | None
    """Of the model, on each device."""
    threads: int | None
    max_batchsize: int | None
    preferred_batch: tuple[int, ...]
    queue_delay_us: int | None
    transport: str
    in_flight: int | None
    """Most requests under way at each server."""
    client_processes: int
    """How many processes send the requests; one sends them itself."""
    rpc: str
    """An `Rpc`, or auto."""
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    headers: tuple[Header, ...]
    server_config: str | None
    """`KEEP`, `OURS`, or the path of a config.pbtxt to lay over the server's; None: what others have loaded
    is kept."""
    served_name: str | None
    """What the entry is called on the server, where that is not `<model>_<platform>`."""
    served_version: int | None
    """Which of its versions is asked; None: the one that the server chooses."""

    @property
    def tls(self) -> Tls:
        """The files for TLS."""
        return Tls(*(str(file or "") for file in (self.tls_ca, self.tls_cert, self.tls_key)))

    @property
    def servers(self) -> tuple[Address, ...]:
        """How each of the servers is reached."""
        return tuple(map(self.address, self.urls))

    def address(self, url: str) -> Address:
        """How a server is reached that is at this address, which may be none of `urls`."""
        metrics = dict(zip(self.urls, self.metrics_urls, strict=False)).get(url, "")
        address = Address(url, tls=self.tls, headers=self.headers, metrics=metrics)
        # All alike, so that the servers of a run can be compared.
        needs_library = address.needs_library or any(Address(other).needs_library for other in self.urls)
        automatic = Rpc.GRPC if needs_library else Rpc.OWN
        return dataclasses.replace(address, rpc=automatic if self.rpc == AUTO else Rpc(self.rpc))

    @classmethod
    def resolve(cls, layers: Layers) -> Self:
        """Take the values.

        Raises:
            ConfigError: an unknown word, an impossible number, or what is no address.
        """
        urls, origin = paths.server_urls(), "TRITON_URL"
        in_flight = layers.take("in_flight", None, _BY_SCENARIO)
        processes = layers.take("client_processes", 1)
        gpus = values.numbers("gpus", layers.take("gpus", None, "all of them"), 0)
        device = layers.take("device", "gpu" if gpus else AUTO, "--gpus" if gpus else "default")
        device = one_of("device", device, DEVICES)
        threads = layers.take("threads", None, "the framework's" if device == "gpu" else "number of CPUs")
        addresses = values.urls(layers.take("url", urls, origin if urls else "default"))
        metrics = layers.take("metrics_url", None, "the port after gRPC's")
        return cls(
            urls=addresses,
            metrics_urls=values.metrics_urls(metrics, addresses),
            device=device,
            gpus=gpus,
            instances=positive(
                "instances", layers.take("instances", None, _BY_SCENARIO), int, _MOST_INSTANCES
            ),
            threads=positive("threads", threads, int),
            max_batchsize=positive(
                "max-batchsize", layers.take("max_batchsize", None, "model"), int, LARGEST_BATCH
            ),
            preferred_batch=values.numbers(
                "preferred-batch", layers.take("preferred_batch", None, "whatever waits"), 1, LARGEST_BATCH
            ),
            queue_delay_us=values.from_zero("queue-delay", layers.take("queue_delay", None, _BY_SCENARIO)),
            transport=one_of("transport", layers.take("transport", AUTO), TRANSPORTS),
            in_flight=positive("in-flight", in_flight, int, _MOST_IN_FLIGHT),
            client_processes=number("client-processes", processes, int, _MOST_PROCESSES),
            rpc=one_of("rpc", layers.take("rpc", AUTO), (AUTO, *Rpc)),
            tls_ca=values.path(layers.take("tls_ca")),
            tls_cert=values.path(layers.take("tls_cert")),
            tls_key=values.path(layers.take("tls_key")),
            headers=parse_headers(layers.take("header", ())),
            server_config=_server_config(
                layers.take("server_config", None, "keep what others have loaded, else ours")
            ),
            served_name=values.entry_name(layers.take("served_name", None, "model and platform")),
            served_version=positive(
                "served-version", layers.take("served_version", None, "the server's choice"), int
            ),
        )

    def entry_there(self, entry: str) -> str:
        """What an entry of ours is called on the server, with its version where one is wanted."""
        version = f"/{self.served_version}" if self.served_version else ""
        return (self.served_name or entry) + version


def _server_config(word: str | None) -> str | None:
    """A word, or a file that is one.

    Raises:
        ConfigError: it is neither.
    """
    if word is None or word.lower() in (KEEP, OURS):
        return word and word.lower()
    file = paths.absolute(word)
    if not file.is_file():
        raise ConfigError(f"--server-config {word}: no such file (nor one of {KEEP}, {OURS})")
    live_config.read(file)
    return str(file)


@dataclass(frozen=True)
class Output:
    """What is written, and how much is said."""

    output: Path
    output_file: Path | None
    """Of all scenarios together, beside the results folders in `output`."""
    save_images: int
    """How many pictures with their boxes to write; 0 for none."""
    label: str
    """What the user calls the run; empty where they do not say."""
    is_anonymous: bool
    """Whether results leave this machine's name out."""
    debug: bool
    quiet: bool

    @classmethod
    def resolve(cls, layers: Layers) -> Self:
        """Take the values.

        Raises:
            ConfigError: options that exclude each other, an impossible number, or what is no path.
        """
        output = paths.absolute(layers.take("output", paths.RESULTS_DIR))
        # The reference of 2019 wrote a file, today's a folder.
        is_file = output.suffix == ".json" and not output.is_dir()
        is_debug, is_quiet = bool(layers.take("debug")), bool(layers.take("quiet"))
        if is_debug and is_quiet:
            raise ConfigError("--debug and --quiet exclude each other: leave one out")
        return cls(
            output=paths.RESULTS_DIR if is_file else output,
            output_file=output if is_file else None,
            save_images=positive("save-images", layers.take("save_images"), int) or 0,
            label=_label(str(layers.take("label", ""))),
            is_anonymous=bool(layers.take("anonymous")),
            debug=is_debug,
            quiet=is_quiet,
        )


def _label(text: str) -> str:
    if len(text) > _LONGEST_LABEL or not text.isprintable():
        raise ConfigError(
            f"--label {text[:20]!r}… is impossible: it takes a line of up to {_LONGEST_LABEL} characters"
        )
    return text.strip()


_ARGS = (
    *("model", "platform", "profile", "scenarios", "mode", "accuracy", "dataset", "dataset_path"),
    *("dataset_list", "inputs", "outputs", "data_format", "count", "time_s", "qps", "max_latency_s"),
    *("queries_single", "queries_multi", "queries_offline", "samples_per_query"),
    *("performance_sample_count", "no_early_end", "user_conf", "max_batchsize"),
    *("preferred_batch", "queue_delay_us"),
    *("instances", "threads", "device", "gpus", "transport", "urls", "metrics_urls"),
    *("rpc", "tls_ca", "tls_cert", "tls_key", "headers"),
    *("client_processes", "in_flight", "server_config", "served_name", "served_version"),
    *("weights", "nms", "precision", "tolerance", "preprocess", "label_offset", "classes", "boxes"),
    *("save_images", "output", "label", "is_anonymous"),
    *("output_file", "cache", "round", "is_official", "is_quick", "debug", "quiet", "provenance", "notes"),
)
"""Every field of the request, in the order of `args` in results.json."""


REFERENCE_ARGS = {
    "scenario": "scenarios",
    "time": "time_s",
    "max_latency": "max_latency_s",
    "backend": "platform",
    "model_name": "model",
    "cache_dir": "cache",
    # Refused here.
    **dict.fromkeys(("audit_conf", "preprocessed_dir", "use_preprocessed_dataset"), ""),
}
"""Of the reference's `args` of results.json, those that are ours by another name, and that name."""


@dataclass(frozen=True)
class RunConfig:
    """The resolved request."""

    model: str
    platform: Platform
    request: Request
    choice: ModelChoice
    data: Data
    changes: RuleChanges
    server: ServerChoice
    output: Output
    provenance: Mapping[str, str]
    """Where each value came from, by the option's name."""
    given: frozenset[str] = frozenset()
    """Options that have a value from the user, in whatever way, by name."""
    notes: tuple[str, ...] = ()
    """What was given and has no effect on this run, and why."""

    @classmethod
    def resolve(cls, layers: Layers, target: Target) -> Self:
        """Take the values of all groups.

        Raises:
            ConfigError: an unknown word, an impossible value, or options that exclude each other.
        """
        layers.provenance.update(target.provenance)
        layers.given.update(target.provenance)
        return cls(
            model=target.spec.name,
            platform=target.platform,
            request=Request.resolve(layers),
            choice=ModelChoice.resolve(layers, target),
            data=Data.resolve(layers),
            changes=RuleChanges.resolve(layers, target.spec),
            server=ServerChoice.resolve(layers),
            output=Output.resolve(layers),
            provenance=layers.provenance,
            given=frozenset(layers.given),
        )

    @property
    def spec(self) -> ModelSpec:
        """The model's declaration."""
        return get_model(self.model)

    @property
    def own_recipe(self) -> tuple[str, str]:
        """How the images of a user's own file are preprocessed, and the option that says so.

        As `harness.models.own_recipes` reads it; empty for the model's own.
        """
        if self.choice.is_user_file and self.data.dataset in RECIPES:
            return self.data.dataset, "dataset"
        return self.choice.preprocess, "preprocess"

    def fields(self) -> dict[str, Any]:
        """Every field of the request by its name, in the order of results.json."""
        groups = (self.request, self.choice, self.data, self.changes, self.server, self.output)
        found = vars(self) | {name: value for group in groups for name, value in vars(group).items()}
        return {name: found[name] for name in _ARGS}

    def to_json(self) -> dict[str, Any]:
        """Plain values for results.json, and what the reference's `args` calls otherwise, for its readers."""
        ours = {name: _plain(value) for name, value in self.fields().items()}
        theirs = {name: ours.get(of) for name, of in REFERENCE_ARGS.items()}
        theirs["scenario"] = ",".join(self.request.scenarios)
        theirs["find_peak_performance"] = self.request.mode == RunMode.FIND_PEAK
        return ours | theirs


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Header):
        return str(value)
    return dict(vars(value)) if isinstance(value, UserConf) else value

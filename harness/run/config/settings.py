"""Every setting of a run with where it comes from: for --dry-run and for `settings` of results.json.

With --dry-run nothing is touched.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.machine import paths
from harness.machine.environment import cpu_count
from harness.models import get_variant, live_config, own_recipes
from harness.models.spec import Task, Variant
from harness.run.config.options import OPTIONS, Kind
from harness.run.config.run_config import AUTO, KEEP, OURS, SYNTHETIC, RunConfig
from harness.run.config.scenario import PACED, ScenarioPlan, scenarios_of
from harness.run.config.tuning import Tuning, as_served
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.triton.address import Header
from harness.triton.client import is_on_this_host

_IN_ANOTHER = ("model_name", "find_peak_performance", "all", "config", "dry_run")
"""Options whose effect is the value of another one."""
_CALIBRATED = "calibrated"
_OF_SERVER = {
    "instances": "server: instances",
    "gpus": "server: GPUs",
    "threads": "server: threads of each",
    "max_batch_size": "server: largest batch",
    "preferred_batch": "server: preferred batches",
    "max_queue_delay_us": "server: queue delay, us",
}
"""Names of settings, by the fields of `ServerSettings`."""


@dataclass(frozen=True)
class Setting:
    """One setting of a run."""

    name: str
    value: Any
    """Plain JSON; None where nothing was asked for, so that `origin` decides."""
    origin: str
    of: str = "test"
    """`request`: an option; `test`: what the request came to."""


def of_request(config: RunConfig, variant: Variant | None, served: Tuning | None = None) -> list[Setting]:
    """Every option's value, by the option's name.

    Args:
        config: the request.
        variant: the model as it is served; None for a file of the user's own that nobody has looked into.
        served: how server and client were set up; None before a run.
    """
    are_here = config.server.device != "gpu" and all(map(is_on_this_host, config.server.servers))
    if served and not served.server.threads:
        # On GPUs, or so set up.
        are_here = False
    found_out: dict[str, Any] = {"threads": cpu_count() if are_here else None}
    origins = dict(config.provenance)
    if not are_here and config.server.threads is None:
        origins["threads"] = "the framework's"
    if variant:
        found_out |= _of_model(variant)
    if served and served.server_origin:
        own = served.server
        of_server = {"threads": own.threads or None, "max_batchsize": own.max_batch_size}
        found_out |= of_server
        origins |= {name: served.server_origin for name in of_server if config.fields()[name] is None}
        origins |= {name: f"{origins[name]}: not applied" for name in not_applied(config, served)}
    elif not served:
        said, file = _said_by_file(config), str(config.server.server_config)
        options = {"threads": "threads", "max_batchsize": "max_batch_size"}
        of_file = {name: said[of] or None for name, of in options.items() if of in said}
        found_out |= of_file
        origins |= {name: file for name in of_file if config.fields()[name] is None}
    fields = config.fields()
    fields["user_conf"] = config.changes.user_conf.path
    fields["output"] = config.output.output_file or config.output.output
    found = []
    for name, option in OPTIONS.items():
        if option.kind == Kind.REFUSED or name in _IN_ANOTHER:
            continue
        value = _plain(fields[option.field or name])
        value = found_out.get(name) if value is None else value
        origin = origins.get(name, "default")
        found.append(Setting(name.replace("_", "-"), value, origin, "request"))
    return [*found, *_found_by(config, variant)]


def _said_by_file(config: RunConfig) -> Mapping[str, Any]:
    """What the file of --server-config says, by the fields of `ServerSettings`; nothing without one."""
    word = config.server.server_config
    if word in (None, KEEP, OURS):
        return {}
    return live_config.said_in(live_config.read(Path(word)), config.platform.facts)


def is_given(config: RunConfig, setting: Setting) -> bool:
    """Whether the user has chosen an option's value: on the command line, in a file, in the environment."""
    is_option = setting.name.replace("-", "_") in config.given
    return setting.of == "request" and (is_option or setting.origin in paths.VARIABLES)


def not_applied(config: RunConfig, served: Tuning) -> tuple[str, ...]:
    """Options that were given and that a server with other settings does not follow, by their names."""
    asked, own = config.server, served.server
    if not served.server_origin:
        return ()
    given = {
        "threads": asked.threads is not None,
        "max_batchsize": asked.max_batchsize is not None and own.max_batch_size > asked.max_batchsize,
        "device": asked.device not in (AUTO, own.device),
        "gpus": bool(asked.gpus) and asked.gpus != own.gpus,
        "instances": asked.instances not in (None, own.instances // max(1, len(own.gpus))),
        # The limit alone is what Triton prefers anyhow.
        "preferred_batch": asked.preferred_batch not in ((), own.preferred_batch, (own.max_batch_size,)),
        "queue_delay": asked.queue_delay_us not in (None, own.max_queue_delay_us),
        "server_config": asked.server_config not in (None, KEEP, served.server_origin),
    }
    return tuple(name for name, is_given in given.items() if is_given)


def _found_by(config: RunConfig, variant: Variant | None) -> Iterator[Setting]:
    """What follows from several options, or from none."""
    is_synthetic = config.data.dataset == SYNTHETIC or config.data.dataset_path is None
    images = SYNTHETIC if is_synthetic else str(config.data.dataset_path)
    yield Setting("images", images, config.provenance["dataset" if is_synthetic else "dataset_path"])
    yield from assumed(config, variant)
    yield Setting("folder of weights", str(paths.weights_dir()), paths.weights_dir_origin())


def assumed(config: RunConfig, variant: Variant | None) -> Iterator[Setting]:
    """How the model is asked and its answers are read: what a wrong accuracy may come from.

    `variant`: as for `of_request`.
    """
    yield _preprocessing(config, variant)
    if variant is None:
        yield from _untold(config)
    if variant and not variant.detection:
        shift = f"{variant.label_offset:+d}" if variant.label_offset else ""
        yield Setting("label of class k", f"k{shift}", config.provenance["label_offset"])
    if variant and (found := variant.detection):
        origin = config.provenance
        yield Setting("class numbers", f"{found.numbering}: {found.numbering.meaning}", origin["classes"])
        unit = "pixels of the input" if found.are_pixels else "shares of the image's sides"
        yield Setting("box numbers", f"{found.box_order} in {unit}", origin["boxes"])


def _untold(config: RunConfig) -> Iterator[Setting]:
    """How answers are read of a file of the user's own that nobody has looked into."""
    choice, origin, told = config.choice, config.provenance, "told by the file's outputs"
    if config.spec.task == Task.CLASSIFICATION:
        shift = f"{choice.label_offset:+d}" if choice.label_offset else ""
        label = told if choice.label_offset is None else f"k{shift}"
        yield Setting("label of class k", label, origin["label_offset"])
        return
    yield Setting("class numbers", str(choice.classes or told), origin["classes"])
    yield Setting("box numbers", choice.boxes or told, origin["boxes"])


def _preprocessing(config: RunConfig, variant: Variant | None) -> Setting:
    text, option = config.own_recipe
    if variant:
        recipe = variant.preprocess
    elif text:
        recipe = own_recipes.parse(text, config.spec.task)
    else:
        recipe = get_variant(config.spec, config.platform).preprocess
    origin = config.provenance[option] if text else "model"
    value = f"{recipe.name}: {own_recipes.describe(recipe)}"
    if config.choice.is_user_file and not variant:
        value += "; size, layout and type are the file's where they are not asked for"
    return Setting("preprocessing", value, origin)


def _of_model(variant: Variant) -> dict[str, Any]:
    """What the model has where nothing was asked for."""
    choice = variant.detection.nms if variant.detection and variant.nms_choices else None
    return {
        "inputs": variant.input.name,
        "outputs": [output.name for output in variant.requested_outputs],
        "data_format": variant.preprocess.layout.value,
        "max_batchsize": variant.batch_limit,
        "nms": choice,
    } | (
        {"classes": variant.detection.numbering.value, "boxes": variant.detection.box_form}
        if variant.detection
        else {}
    )


def of_test(test: ScenarioPlan, tuning: Tuning, plan: Plan | None = None) -> list[Setting]:
    """What the request comes to in one scenario.

    Args:
        test: the scenario.
        tuning: how server and client are set up.
        plan: as LoadGen was told, with the rates that were measured before; None before a run.
    """
    return [*_plan_settings(test, plan), *_tuning_settings(test.config, tuning)]


def _plan_settings(test: ScenarioPlan, plan: Plan | None) -> Iterator[Setting]:
    config, scenario = test.config, test.scenario
    asked = plan or test.plan(Mode.PERFORMANCE, config.changes.count)
    yield Setting("shortest duration, s", asked.min_duration_ms / 1000, test.duration.origin)
    unit = "samples" if scenario == Scenario.OFFLINE else "queries"
    yield Setting(f"fewest {unit}", asked.min_query_count, test.queries.origin)
    samples = test.performance_samples
    origin = samples.origin
    if asked.performance_sample_count < samples.value:
        origin = config.provenance["count"] if config.changes.count else "size of the data set"
    yield Setting("samples to draw from", asked.performance_sample_count, origin)
    if scenario == Scenario.MULTI_STREAM:
        yield Setting("samples per query", asked.samples_per_query, test.samples_per_query.origin)
    if scenario == Scenario.SERVER:
        yield Setting("latency bound, ms", asked.server_target_latency_ns / 1e6, test.bound.origin)
    if scenario in PACED:
        yield Setting(
            "offered rate, queries/s" if scenario == Scenario.SERVER else "expected rate, samples/s",
            asked.target_qps if test.rate or plan else None,
            test.rate.origin if test.rate else "searched" if test.is_searched else _CALIBRATED,
        )
    elif plan:
        yield Setting("expected latency, ms", plan.expected_latency_ns / 1e6, _CALIBRATED)
    by_round = f"round {test.rule.round}"
    yield Setting("seed of the sample set", asked.qsl_seed, by_round)
    yield Setting("seed of the sample order", asked.sample_index_seed, by_round)
    yield Setting("seed of the schedule", asked.schedule_seed, by_round)


def _tuning_settings(config: RunConfig, tuning: Tuning) -> Iterator[Setting]:
    server, own = tuning.server, tuning.server_origin
    is_limit = server.max_batch_size == config.server.max_batchsize
    limit = own or (config.provenance["max_batchsize"] if is_limit else tuning.origin)
    origin = own or tuning.origin
    asked = config.provenance
    instances = own or (asked["instances"] if config.server.instances else tuning.origin)
    yield Setting(_OF_SERVER["instances"], server.instances, instances)
    if server.gpus:
        yield Setting(_OF_SERVER["gpus"], list(server.gpus), own or asked["gpus"])
    threads = own or ("the framework's" if not server.threads else config.provenance["threads"])
    yield Setting(_OF_SERVER["threads"], server.threads or None, threads)
    yield Setting(_OF_SERVER["max_batch_size"], server.max_batch_size, limit)
    if server.preferred_batch:
        preferred = own or asked["preferred_batch"]
        yield Setting(_OF_SERVER["preferred_batch"], list(server.preferred_batch), preferred)
    is_asked = config.server.queue_delay_us is not None
    delay = own or (asked["queue_delay"] if is_asked else tuning.origin)
    yield Setting(_OF_SERVER["max_queue_delay_us"], server.max_queue_delay_us, delay)
    for name, value in server.parameters:
        yield Setting(f"server: {name}", value, origin)
    yield Setting("client: samples per request", tuning.client_batch, tuning.origin)
    in_flight = config.provenance["in_flight"] if config.server.in_flight else tuning.origin
    yield Setting("client: requests in flight", tuning.in_flight, in_flight)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value] or None
    if isinstance(value, Header):
        return str(value)
    return None if value == "" else value


_NAME, _VALUE = 28, 34
"""Widths of the columns, so that most lines fit 80 characters."""


def show(configs: Sequence[RunConfig]) -> None:
    """Print what runs of these would be.

    Raises:
        ConfigError: the user's table of measured settings is damaged.
    """
    for config in configs:
        for line in lines(config):
            sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.write("--dry-run: nothing was started or written.\n")


def lines(config: RunConfig) -> list[str]:
    """The request, then each test of each scenario."""
    found = [f"{config.model} on {config.platform}", _line("setting", "value", "from")]
    variant = get_variant(config.spec, config.platform)
    request = of_request(config, None if config.choice.is_user_file else variant)
    found += map(_setting_line, request)
    found += [f"note: {note}" for note in config.notes]
    for scenario, test in tests(config):
        found += ["", str(scenario), *map(_setting_line, test)]
    return [*found, ""]


def tests(config: RunConfig) -> Iterator[tuple[Scenario, list[Setting]]]:
    """The settings of each test; Server has one for each latency bound.

    Raises:
        ConfigError: the user's table of measured settings is damaged.
    """
    variant = get_variant(config.spec, config.platform)
    for test in scenarios_of(config):
        yield test.scenario, _foreseen(test, variant)


def _foreseen(test: ScenarioPlan, variant: Variant) -> list[Setting]:
    """The settings of a test as they were chosen, but for what the file of --server-config says."""
    config = test.config
    tuning, said = test.tuning(variant, config.server.servers), _said_by_file(config)
    if not said:
        return of_test(test, tuning)
    parameters = dict(tuning.server.parameters) | dict(said["parameters"])
    server = dataclasses.replace(tuning.server, **{**said, "parameters": tuple(parameters.items())})
    devices = len(server.gpus) or test.server(variant, config.server.servers).devices
    if said.get("gpus") or server.device == "cpu":
        # Which the file's instances were counted on.
        devices = 1
    tuning = as_served(
        tuning,
        [dataclasses.replace(server, instances=server.instances * devices)],
        test.scenario,
        samples_per_query=int(test.samples_per_query.value),
        server_origin="",
        in_flight=config.server.in_flight,
    )
    names = {_OF_SERVER.get(field) for field in said} | {f"server: {name}" for name, _ in said["parameters"]}
    return [
        dataclasses.replace(one, origin=str(config.server.server_config)) if one.name in names else one
        for one in of_test(test, dataclasses.replace(tuning, server=server))
    ]


def _setting_line(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, float):
        value = f"{value:g}"
    return _line(setting.name, "-" if value is None else str(value), setting.origin)


def _line(name: str, value: str, origin: str) -> str:
    return f"  {name:<{_NAME}} {value:<{_VALUE}} {origin}"

"""Options that exclude each other or do not fit the model, and those that have no effect on a run."""

from collections.abc import Iterator
from pathlib import Path

from harness.errors import ConfigError
from harness.models import get_variant, live_config, own_recipes
from harness.models.platforms import Platform
from harness.models.recipes import RECIPES, has_same_arithmetic, is_for
from harness.models.spec import Layout, Precision, Task, Variant
from harness.run.config.run_config import (
    COCO,
    KEEP,
    OURS,
    SYNTHETIC,
    RunConfig,
    RunMode,
    ServerChoice,
)
from harness.run.mlperf.rounds import Scenario, rules
from harness.run.mlperf.user_conf import MIN_DURATION, TARGET_LATENCY, changed_rules
from harness.triton import tls
from harness.triton.rpc import Rpc


def check(config: RunConfig) -> None:
    """See that a request can be carried out.

    Raises:
        ConfigError: it cannot; names the options.
    """
    server = config.server
    if config.request.is_quick:
        _check_quick(config)
    _check_rules(config)
    _check_data(config)
    _check_access(server)
    if not any(address.is_name for address in server.servers):
        check_shares(server.client_processes, max(1, len(server.urls)))
    _check_server_config(config)
    _check_batches_and_gpus(server)
    _check_model_options(config)


def check_shares(processes: int, servers: int) -> None:
    """See that each of several client processes can ask one server, and every server gets as many.

    Raises:
        ConfigError: they cannot be shared out.
    """
    if processes > 1 and processes % servers:
        raise ConfigError(
            f"--client-processes {processes} is impossible with {servers} servers: each process asks one, "
            f"and all servers are asked alike; give a multiple of {servers}"
        )


def _check_access(server: ServerChoice) -> None:
    files = {"--tls-ca": server.tls_ca, "--tls-cert": server.tls_cert, "--tls-key": server.tls_key}
    given = {option: file for option, file in files.items() if file}
    if given and not any(address.is_encrypted for address in server.servers):
        raise ConfigError(f"{next(iter(given))} is for TLS: add --url grpcs://HOST:PORT")
    for address in server.servers:
        if address.needs_library and server.rpc == Rpc.OWN:
            raise ConfigError(
                f"--rpc {Rpc.OWN} takes HOST:PORT and dns:///NAME:PORT only, not {address.url}: leave it out"
            )
    if bool(server.tls_cert) != bool(server.tls_key):
        raise ConfigError("--tls-cert and --tls-key are a pair: give both, or none")
    tls.check_files(server.tls)


def _check_server_config(config: RunConfig) -> None:
    """See that a file of settings is not of another model."""
    chosen, name = config.server.server_config, config.server.served_name
    name = name or config.spec.entry_name(config.platform)
    if chosen in (None, KEEP, OURS):
        return
    named = live_config.name_in(live_config.read(Path(chosen)))
    if named not in ("", name):
        raise ConfigError(
            f"--server-config {chosen} is of {named}, and the model is called {name} on the server: take the "
            "name out, or give --served-name"
        )


def _check_batches_and_gpus(server: ServerChoice) -> None:
    if server.gpus and server.device != "gpu":
        raise ConfigError(f"--gpus is for GPUs, and --device {server.device} is not: leave one out")
    if server.max_batchsize and server.preferred_batch and server.preferred_batch[-1] > server.max_batchsize:
        raise ConfigError(
            f"--preferred-batch {server.preferred_batch[-1]} is more than --max-batchsize "
            f"{server.max_batchsize}: raise that, or prefer less"
        )


def check_placement(config: RunConfig, variant: Variant) -> None:
    """See that a model can be where it is asked to be, in batches as large as are asked for.

    Raises:
        ConfigError: it cannot.
    """
    asked, most, what = config.server, variant.largest_batch, f"{config.model} on {config.platform}"
    if asked.gpus and variant.platform.facts.is_cpu_only:
        raise ConfigError(f"--gpus is impossible: {what} calculates on the CPU")
    preferred = max(asked.preferred_batch, default=None)
    for option, size in {"--max-batchsize": asked.max_batchsize, "--preferred-batch": preferred}.items():
        # With a free batch axis, what the options take is no more.
        if size and size > most:
            raise ConfigError(f"{option} {size} is impossible: {what} takes at most 1 sample at once")


def _check_quick(config: RunConfig) -> None:
    excluded = {
        "--round": config.changes.is_official,
        "--time": config.changes.time_s is not None,
        f"--mode {config.request.mode}": config.request.mode != RunMode.PERFORMANCE,
    }
    used = [option for option, is_used in excluded.items() if is_used]
    if used:
        raise ConfigError(f"--quick asks a few samples of every scenario and takes no {', '.join(used)}")


def _check_rules(config: RunConfig) -> None:
    changes, mode = config.changes, config.request.mode
    wants_official = "--round" if changes.is_official else ""
    if mode == RunMode.SUBMISSION:
        wants_official = "--mode Submission"
    used = list(_changed(config))
    if wants_official and used:
        raise ConfigError(
            f"{wants_official} runs by MLPerf's rules and takes no {', '.join(used)}; "
            f"leave {'it' if len(used) == 1 else 'them'} out, or run without {wants_official}"
        )
    if mode == RunMode.FIND_PEAK and config.request.scenarios != (Scenario.SERVER,):
        asked = "--mode FindPeakPerformance"
        if config.provenance["mode"] == "--find-peak-performance":
            asked = "--find-peak-performance"
        raise ConfigError(f"{asked} searches the highest Server rate: use --scenario Server")
    has_duration = changes.time_s is not None or changes.user_conf.get(Scenario.SERVER, MIN_DURATION)
    if mode == RunMode.FIND_PEAK and changes.count is not None and not has_duration:
        # LoadGen raises the rate until one fails.
        raise ConfigError(
            f"--count {changes.count} alone would let a search go on for ever: so few queries may be "
            "answered in time at any rate; add --time, for how long to try each"
        )


def _changed(config: RunConfig) -> Iterator[str]:
    """What was given that the rules of a round fix."""
    changes = config.changes
    listed = {
        "--count": changes.count,
        "--time": changes.time_s,
        "--max-latency": changes.max_latency_s or None,
        "--queries-single": changes.queries_single,
        "--queries-multi": changes.queries_multi,
        "--queries-offline": changes.queries_offline,
        "--samples-per-query": changes.samples_per_query,
        "--performance-sample-count": changes.performance_sample_count,
    }
    yield from (option for option, value in listed.items() if value is not None)
    by_scenario = {scenario: rules(changes.round, config.spec, scenario) for scenario in Scenario}
    keys = dict.fromkeys(changed_rules(changes.user_conf, by_scenario))
    yield from (f"{key} of --user_conf" for key in keys)


def _check_data(config: RunConfig) -> None:
    data = config.data
    is_given = config.provenance["dataset_path"] != "DATA_DIR" and data.dataset_path is not None
    if data.dataset == SYNTHETIC and is_given:
        raise ConfigError("--dataset synthetic draws its own images and takes no --dataset-path")
    if data.dataset_list and not data.dataset_path:
        raise ConfigError("--dataset-list names the labels of the images in --dataset-path, which is missing")
    if data.dataset in (*RECIPES, COCO) and not data.dataset_path:
        labels = "annotations" if config.spec.task == Task.DETECTION else "val_map.txt"
        raise ConfigError(
            f"--dataset {data.dataset} needs --dataset-path DIR (or DATA_DIR) with the images and "
            f"{labels}; --dataset synthetic needs no data"
        )


def _check_model_options(config: RunConfig) -> None:
    """See that the data and the options are for a model of this kind."""
    choice, dataset = config.choice, config.data.dataset
    variant = get_variant(config.spec, config.platform)
    what = f"{config.model} on {config.platform}"
    recipe = RECIPES.get(dataset)
    is_detector = config.spec.task == Task.DETECTION
    if (recipe and not is_for(config.spec.task, recipe)) or (dataset == COCO and not is_detector):
        kind = "detector" if is_detector else "classifier"
        raise ConfigError(f"{what} is a {kind}: --dataset {dataset} is not for these")
    if not choice.is_user_file and recipe and not has_same_arithmetic(recipe, variant.preprocess):
        raise ConfigError(
            f"{what} is preprocessed as {variant.preprocess.name}: "
            f"--dataset {dataset} would feed it other pixel values"
        )
    _check_own(config)
    if config.output.save_images and not is_detector:
        raise ConfigError(f"{what} is a classifier: --save-images draws the boxes of detectors")
    if choice.nms and choice.nms not in variant.nms_choices:
        raise ConfigError(f"{what} has no choice of NMS: --nms is for ssd-resnet34 on pytorch")
    if choice.precision != Precision.AUTO and not config.platform.facts.chooses_precision:
        choosing = ", ".join(platform for platform in Platform if platform.facts.chooses_precision)
        raise ConfigError(f"{what} has no choice of precision: --precision is for {choosing}")
    if not choice.is_user_file:
        check_tensors(config, variant)


def _check_own(config: RunConfig) -> None:
    """See that what only a user knows of a file of theirs is said of one, and once."""
    choice, dataset = config.choice, config.data.dataset
    of_detectors = {"--classes": choice.classes, "--boxes": choice.boxes or None}
    said = {
        "--preprocess": choice.preprocess or None,
        "--label-offset": choice.label_offset,
        **of_detectors,
    }
    given = [option for option, value in said.items() if value is not None]
    if given and not choice.is_user_file:
        raise ConfigError(f"{given[0]} is for a file of your own: {config.model}'s is known; leave it out")
    if choice.preprocess and dataset in RECIPES:
        raise ConfigError(f"--preprocess and --dataset {dataset} both say how to preprocess: leave one out")
    task = config.spec.task
    if choice.preprocess and not is_for(task, own_recipes.parse(choice.preprocess, task)):
        why = "crops, which would move boxes" if task == Task.DETECTION else "is for detectors"
        raise ConfigError(f"--preprocess {choice.preprocess} {why}: name another")
    if choice.label_offset is not None and task == Task.DETECTION:
        raise ConfigError(f"--label-offset is for classifiers: {config.model} is a detector")
    if task == Task.CLASSIFICATION and (wrong := [name for name in given if name in of_detectors]):
        raise ConfigError(f"{wrong[0]} is for detectors: {config.model} is a classifier")


def check_tensors(config: RunConfig, variant: Variant) -> None:
    """See that the model has the tensors that the user expects, by the declaration or the file's own.

    TensorFlow's `:0` may be there or not.

    Raises:
        ConfigError: it has others.
    """
    choice = config.choice
    what = f"{config.model} on {config.platform}"
    if choice.data_format and choice.data_format != variant.preprocess.layout:
        other = Layout.NHWC if choice.data_format == Layout.NCHW else Layout.NCHW
        raise ConfigError(f"{what} takes images as {other}: leave --data-format {choice.data_format} out")
    if choice.inputs and _bare(choice.inputs) != _bare((variant.input.name,)):
        raise ConfigError(
            f"{what} has the input {variant.input.name}: leave --inputs {','.join(choice.inputs)} out"
        )
    scored = tuple(output.name for output in variant.requested_outputs)
    if choice.outputs and sorted(_bare(choice.outputs)) != sorted(_bare(scored)):
        raise ConfigError(
            f"{what} is scored by the outputs {','.join(scored)}: leave --outputs "
            f"{','.join(choice.outputs)} out"
        )


def _bare(names: tuple[str, ...]) -> list[str]:
    return [name.removesuffix(":0") for name in names]


def no_effect(config: RunConfig) -> tuple[str, ...]:
    """What was given for scenarios that are not run, each in a sentence."""
    changes, scenarios = config.changes, config.request.scenarios
    multi, server = Scenario.MULTI_STREAM, Scenario.SERVER
    of = {
        "--max-latency": (changes.max_latency_s or None, {server}),
        "--qps": (changes.qps, {server, Scenario.OFFLINE}),
        "--queries-single": (changes.queries_single, {Scenario.SINGLE_STREAM}),
        "--queries-multi": (changes.queries_multi, {multi, server}),
        "--queries-offline": (changes.queries_offline, {Scenario.OFFLINE}),
        "--samples-per-query": (changes.samples_per_query, {multi}),
    }
    found = [
        f"{option} has no effect on {', '.join(scenarios)}: it is for {' and '.join(sorted(fitting))}"
        for option, (value, fitting) in of.items()
        if value is not None and not fitting.intersection(scenarios)
    ]
    hinted = (Scenario.SINGLE_STREAM, multi)
    if any(changes.user_conf.get(scenario, TARGET_LATENCY) for scenario in hinted if scenario in scenarios):
        found.append(f"{TARGET_LATENCY} of --user_conf is only Server's: it is measured in other scenarios")
    return tuple(found)

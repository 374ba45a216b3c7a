"""Options that exclude each other or do not fit the model, and those that have no effect on a run."""

from collections.abc import Iterator

from harness.errors import ConfigError
from harness.models import get_variant
from harness.models.recipes import RECIPES, has_same_arithmetic, is_for
from harness.models.spec import Layout, Platform, Precision, Task, Variant
from harness.run.config.run_config import COCO, SYNTHETIC, RunConfig, RunMode
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.user_conf import MIN_DURATION, TARGET_LATENCY, TARGET_QPS


def check(config: RunConfig) -> None:
    """See that a request can be carried out.

    Raises:
        ConfigError: it cannot; names the options.
    """
    if config.is_quick:
        _check_quick(config)
    _check_rules(config)
    _check_data(config)
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


def _check_rules(config: RunConfig) -> None:
    wants_official = "--round" if config.is_official else ""
    if config.mode == RunMode.SUBMISSION:
        wants_official = "--mode Submission"
    used = list(_changes(config))
    if wants_official and used:
        raise ConfigError(
            f"{wants_official} runs by MLPerf's rules and takes no {', '.join(used)}; "
            f"leave {'it' if len(used) == 1 else 'them'} out, or run without {wants_official}"
        )
    if config.mode == RunMode.FIND_PEAK and config.scenarios != (Scenario.SERVER,):
        asked = "--mode FindPeakPerformance"
        if config.provenance["mode"] == "--find-peak-performance":
            asked = "--find-peak-performance"
        raise ConfigError(f"{asked} searches the highest Server rate: use --scenario Server")
    has_duration = config.time_s is not None or config.user_conf.get(Scenario.SERVER, MIN_DURATION)
    if config.mode == RunMode.FIND_PEAK and config.count is not None and not has_duration:
        # LoadGen raises the rate until one fails.
        raise ConfigError(
            f"--count {config.count} alone would let a search go on for ever: so few queries may be answered "
            "in time at any rate; add --time, for how long to try each"
        )


def _changes(config: RunConfig) -> Iterator[str]:
    """What was given that the rules of a round fix."""
    changes = {
        "--count": config.count,
        "--time": config.time_s,
        "--max-latency": config.max_latency_s or None,
        "--queries-single": config.queries_single,
        "--queries-multi": config.queries_multi,
        "--queries-offline": config.queries_offline,
        "--samples-per-query": config.samples_per_query,
        "--performance-sample-count": config.performance_sample_count,
    }
    yield from (option for option, value in changes.items() if value is not None)
    keys = dict.fromkeys(key for values in config.user_conf.values.values() for key in values)
    # Rates are a submitter's own to choose, and what user.conf is for.
    yield from (f"{key} of --user_conf" for key in keys if key != TARGET_QPS)


def _check_data(config: RunConfig) -> None:
    is_given = config.provenance["dataset_path"] != "DATA_DIR" and config.dataset_path is not None
    if config.dataset == SYNTHETIC and is_given:
        raise ConfigError("--dataset synthetic draws its own images and takes no --dataset-path")
    if config.dataset_list and not config.dataset_path:
        raise ConfigError("--dataset-list names the labels of the images in --dataset-path, which is missing")
    if config.dataset in (*RECIPES, COCO) and not config.dataset_path:
        labels = "annotations" if config.spec.task == Task.DETECTION else "val_map.txt"
        raise ConfigError(
            f"--dataset {config.dataset} needs --dataset-path DIR (or DATA_DIR) with the images and "
            f"{labels}; --dataset synthetic needs no data"
        )


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
    if not config.is_user_file:
        check_tensors(config, variant)


def check_tensors(config: RunConfig, variant: Variant) -> None:
    """See that the model has the tensors that the user expects, by the declaration or the file's own.

    TensorFlow's `:0` may be there or not.

    Raises:
        ConfigError: it has others.
    """
    what = f"{config.model} on {config.platform}"
    if config.data_format and config.data_format != variant.preprocess.layout:
        other = Layout.NHWC if config.data_format == Layout.NCHW else Layout.NCHW
        raise ConfigError(f"{what} takes images as {other}: leave --data-format {config.data_format} out")
    if config.inputs and _bare(config.inputs) != _bare((variant.input.name,)):
        raise ConfigError(
            f"{what} has the input {variant.input.name}: leave --inputs {','.join(config.inputs)} out"
        )
    scored = tuple(output.name for output in variant.requested_outputs)
    if config.outputs and sorted(_bare(config.outputs)) != sorted(_bare(scored)):
        raise ConfigError(
            f"{what} is scored by the outputs {','.join(scored)}: leave --outputs "
            f"{','.join(config.outputs)} out"
        )


def _bare(names: tuple[str, ...]) -> list[str]:
    return [name.removesuffix(":0") for name in names]


def no_effect(config: RunConfig) -> tuple[str, ...]:
    """What was given for scenarios that are not run, each in a sentence."""
    scenarios = set(config.scenarios)
    multi, server = Scenario.MULTI_STREAM, Scenario.SERVER
    of = {
        "--max-latency": (config.max_latency_s or None, {server}),
        "--qps": (config.qps, {server, Scenario.OFFLINE}),
        "--queries-single": (config.queries_single, {Scenario.SINGLE_STREAM}),
        "--queries-multi": (config.queries_multi, {multi, server}),
        "--queries-offline": (config.queries_offline, {Scenario.OFFLINE}),
        "--samples-per-query": (config.samples_per_query, {multi}),
    }
    found = [
        f"{option} has no effect on {', '.join(config.scenarios)}: it is for {' and '.join(sorted(fitting))}"
        for option, (value, fitting) in of.items()
        if value is not None and not scenarios & fitting
    ]
    hinted = (Scenario.SINGLE_STREAM, multi)
    if any(config.user_conf.get(scenario, TARGET_LATENCY) for scenario in hinted if scenario in scenarios):
        found.append(f"{TARGET_LATENCY} of --user_conf is only Server's: it is measured in other scenarios")
    return tuple(found)

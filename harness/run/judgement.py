"""One scenario's tests become one result: LoadGen's verdict, our failures, accuracy, and what deviates."""

import dataclasses
import shlex
import sys
import time
from pathlib import Path

from harness.answers.accuracy import Accuracy, score_classification
from harness.answers.coco_scoring import score_detection
from harness.answers.precision import BOX_AGREEMENT, is_full
from harness.data.dataset import Dataset
from harness.errors import InferenceError
from harness.machine import environment
from harness.models.manifest import OFFICIAL, SEEDED
from harness.run.config import planning, settings
from harness.run.config.run_config import SYNTHETIC, RunConfig, RunMode
from harness.run.config.tuning import Tuning
from harness.run.mlperf import loadgen, logs, verdict
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Rules, Scenario
from harness.run.mlperf.verdict import Metric
from harness.run.preparation import Prepared
from harness.run.results.result import (
    DataSet,
    Figures,
    Kind,
    Result,
    Server,
    Setting,
    Verdict,
    test_folder,
)
from harness.run.truth import DATA_SET, Truths
from harness.run.worker.job import Outcome
from harness.triton.client import is_on_this_host

_BOX_AGREEMENT_TOLERANCE = 0.01
"""mAP of a served model against its source framework is 1.0 but for rounding (see `answers.agreement`)."""


@dataclasses.dataclass
class _Found:
    """What the tests' logs say."""

    failures: list[str]
    reasons: list[str] = dataclasses.field(default_factory=list)
    figures: Figures | None = None
    metric: Metric | None = None
    accuracy: Accuracy | None = None


def judge(
    prepared: Prepared,
    truths: Truths,
    scenario: Scenario,
    rule: Rules,
    bound_s: float | None,
    folder: Path,
    outcomes: dict[Mode, Outcome],
    tuning: Tuning,
    server: Server,
    precision: str | None = None,
) -> Result:
    """Combine what LoadGen logged with what the workers reported.

    Args:
        prepared: the model and the data.
        truths: what the answers are compared with.
        scenario: what was run.
        rule: what the round asks for.
        bound_s: Server's latency bound, None for the round's.
        folder: where LoadGen's logs are.
        outcomes: by mode, of the tests that were started.
        tuning: how server and client were set up.
        server: who answered.
        precision: what the server calculated in (`harness.answers.precision`).

    Raises:
        HarnessError: a log cannot be read, or the source framework cannot be run.
    """
    found = _Found([failure for outcome in outcomes.values() if (failure := _failure(outcome))])
    for mode in (mode for mode, outcome in outcomes.items() if not _failure(outcome)):
        if mode == Mode.ACCURACY:
            _judge_accuracy(prepared, truths, test_folder(folder, mode), precision, found)
        else:
            _judge_performance(test_folder(folder, mode), mode, scenario, outcomes[mode].test_s, found)
    config, deviations = prepared.config, _deviations(prepared, rule, scenario)
    return Result(
        model=prepared.manifest.entry.removesuffix(f"_{config.platform}"),
        platform=config.platform.value,
        scenario=scenario,
        folder=folder,
        kind=Kind.QUICK if deviations else Kind.OFFICIAL,
        deviations=deviations,
        verdict=_verdict(found),
        reasons=(*found.failures, *found.reasons),
        metric=found.metric,
        accuracy=found.accuracy,
        figures=found.figures,
        tests=outcomes,
        server=server,
        rules=dataclasses.asdict(rule),
        manifest=dataclasses.asdict(prepared.manifest),
        dataset=_dataset(prepared.dataset),
        loadgen=loadgen.version(),
        environment=environment.describe(),
        settings=_settings(prepared, rule, bound_s, scenario, outcomes, tuning),
        args=config.to_json(),
        cmdline=shlex.join(sys.argv),
        time=int(time.time()),
        precision=precision,
    )


def _verdict(found: _Found) -> Verdict:
    if found.failures:
        return Verdict.FAILED
    return Verdict.INVALID if found.reasons else Verdict.VALID


def _judge_accuracy(
    prepared: Prepared, truths: Truths, log_dir: Path, precision: str | None, found: _Found
) -> None:
    try:
        found.accuracy = _score(prepared, truths, log_dir, is_full(precision))
    except InferenceError as error:
        # What was measured before is not lost for it.
        found.failures.append(str(error))
    else:
        found.reasons += _below_threshold(found.accuracy)
    found.reasons += verdict.error_reasons(logs.read_detail(log_dir))


def _judge_performance(log_dir: Path, mode: Mode, scenario: Scenario, test_s: float, found: _Found) -> None:
    log = logs.read_detail(log_dir)
    found.figures = Figures.of(log, scenario, test_s)
    if mode == Mode.FIND_PEAK:
        found.metric = verdict.peak(log)
        found.reasons += verdict.peak_reasons(log)
    else:
        found.metric = verdict.metric(log, scenario)
        found.reasons += verdict.reasons(log, scenario)


def _settings(
    prepared: Prepared,
    rule: Rules,
    bound_s: float | None,
    scenario: Scenario,
    outcomes: dict[Mode, Outcome],
    tuning: Tuning,
) -> tuple[Setting, ...]:
    """Every setting of the request and of its first test as it was run."""
    plan = next((outcome.plan for outcome in outcomes.values() if outcome.plan), None)
    config = prepared.config
    found = [
        *settings.of_request(config, prepared.manifest.variant),
        *settings.of_test(config, rule, scenario, bound_s, tuning, plan),
    ]
    return tuple(Setting(one.name, one.value, one.origin, one.of) for one in found)


def _dataset(dataset: Dataset) -> DataSet:
    return DataSet(dataset.name, len(dataset.samples), dataset.fingerprint, dataset.is_complete)


def _failure(outcome: Outcome) -> str:
    """Why a test failed, or nothing; failed samples count whatever LoadGen says of the run."""
    failures = outcome.failures
    if outcome.error or not failures.requests:
        return outcome.error
    return (
        f"{failures.samples} samples in {failures.requests} requests failed, the first (sample indices "
        f"{list(failures.first_sample_indices)[:8]}) with {failures.first}"
    )


def _below_threshold(accuracy: Accuracy) -> list[str]:
    if accuracy.is_met:
        return []
    of = "on" if accuracy.good is None else f"{accuracy.good} of"
    return [
        f"{accuracy.metric} {accuracy.value:.3%} ({of} {accuracy.total} samples, against the "
        f"{accuracy.truth}) is below {accuracy.threshold:.3%}"
    ]


def _deviations(prepared: Prepared, rule: Rules, scenario: Scenario) -> tuple[str, ...]:
    """Everything that keeps this from being a run by MLPerf's rules."""
    config, dataset, weights = prepared.config, prepared.dataset, prepared.manifest.weights
    found = []
    if weights != OFFICIAL:
        found.append("seeded weights" if weights == SEEDED else "weights from a user's file")
    if dataset.name == SYNTHETIC:
        found.append("synthetic images")
    elif not dataset.has_labels:
        found.append("images without labels")
    elif not dataset.is_complete:
        found.append(f"{len(dataset.samples)} images instead of the whole data set")
    found += _changed_rules(config, rule, scenario)
    if config.mode == RunMode.FIND_PEAK:
        found.append("a search for the peak rate")
    if not all(map(is_on_this_host, config.urls)):
        found.append("a server on another machine, as in MLPerf's Network division, whose rules are others")
    if not rule.scenario_in_round:
        found.append(f"round {rule.round} had another MultiStream, or none")
    if not rule.model_in_round:
        found.append(f"{config.model} is not a benchmark of round {rule.round}")
    return tuple(found)


def _changed_rules(config: RunConfig, rule: Rules, scenario: Scenario) -> list[str]:
    """What the user asked for instead of what the round says."""
    found = []
    duration_ms = planning.duration_ms(config, rule, scenario).value
    queries = planning.queries(config, rule, scenario).value
    if config.time_s is not None or 0 < duration_ms < rule.min_duration_ms:
        found.append(f"{duration_ms / 1000:g} s instead of {rule.min_duration_ms / 1000:g} s")
    elif config.count is not None:
        found.append(f"shortened to --count {config.count}")
    elif queries < rule.min_query_count:
        found.append(f"{queries:.0f} queries instead of {rule.min_query_count}")
    if scenario == Scenario.SERVER and planning.bounds_s(config, scenario) != (None,):
        found.append("another latency bound than MLPerf's")
    size = planning.samples_per_query(config, rule, scenario).value
    if size != rule.samples_per_query:
        found.append(f"{size:.0f} samples in a query instead of {rule.samples_per_query}")
    samples = planning.performance_samples(config, rule, scenario).value
    if samples < rule.performance_sample_count:
        found.append(f"{samples:.0f} samples to draw from instead of {rule.performance_sample_count}")
    return found


def _score(prepared: Prepared, truths: Truths, log_dir: Path, is_exact: bool) -> Accuracy:
    """Score an accuracy test; labels have a threshold only for official weights on the whole data set.

    `is_exact` where the server's answers should be the source framework's but for rounding.
    """
    payloads = logs.read_accuracy(log_dir)
    wanted = truths.exact if is_exact else truths.near
    target = prepared.config.spec.target
    variant = prepared.manifest.variant
    metric = target.metric
    threshold: float | None = None
    if wanted.origin != DATA_SET:
        metric += " agreement"
        if variant.detection:
            threshold = 1.0 - _BOX_AGREEMENT_TOLERANCE if is_exact else BOX_AGREEMENT
        elif wanted.near_labels:
            metric += " but for near-equal classes"
            threshold = 1.0
        elif is_exact:
            threshold = 1.0
    elif prepared.manifest.weights == OFFICIAL and prepared.dataset.is_complete:
        threshold = target.threshold
    if variant.nms_choices and variant.detection:
        metric += f" with {variant.detection.nms} NMS"
    if variant.detection is None or wanted.annotations is None:
        return score_classification(
            payloads,
            wanted.labels,
            wanted.near_labels,
            metric=metric,
            truth=wanted.origin,
            threshold=threshold,
        )
    found = score_detection(
        payloads,
        wanted.annotations,
        is_contiguous=variant.detection.is_contiguous,
        metric=metric,
        truth=wanted.origin,
        threshold=threshold,
    )
    return dataclasses.replace(found, truth_file=wanted.file)

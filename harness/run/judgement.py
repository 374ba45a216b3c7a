"""One scenario's tests become one result: LoadGen's verdict, our failures, accuracy, and what deviates."""

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.answers import detection_doubt, doubt
from harness.answers.accuracy import Accuracy, score_classification
from harness.answers.coco_scoring import score_detection
from harness.answers.precision import BOX_AGREEMENT, is_full
from harness.data.dataset import Dataset, shortfalls
from harness.errors import InferenceError
from harness.machine import environment
from harness.models.manifest import OFFICIAL
from harness.run.config import settings
from harness.run.config.run_config import SYNTHETIC
from harness.run.config.scenario import ScenarioPlan
from harness.run.config.tuning import Tuning
from harness.run.mlperf import loadgen, logs, verdict
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rate_search import Search
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.verdict import Metric
from harness.run.preparation import SYNTHETIC_IMAGES, Prepared, of_weights
from harness.run.results.result import (
    DataSet,
    Figures,
    Kind,
    RateOrigin,
    Result,
    Server,
    Setting,
    Verdict,
    test_folder,
)
from harness.run.truth import DATA_SET, Truth, Truths
from harness.run.worker import timeline
from harness.run.worker.job import Outcome
from harness.triton.address import without_secrets

_BOX_AGREEMENT_TOLERANCE = 0.01
"""mAP of a served model against its source framework is 1.0 but for rounding (see `answers.agreement`)."""


@dataclasses.dataclass(frozen=True)
class Occasion:
    """When, and beside what, tests are run."""

    invocation: str = ""
    """`Result.invocation`."""
    others_before: float | None = None
    """`Result.others_before`."""


def new_invocation() -> str:
    """When a command began, and its process."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


@dataclasses.dataclass(frozen=True)
class Ended:
    """One scenario's tests, as they ended."""

    folder: Path
    """Where LoadGen's logs are."""
    outcomes: dict[Mode, Outcome]
    """By mode, of the tests that were started."""
    tuning: Tuning
    """How server and client were set up."""
    server: Server
    """Who answered."""
    precision: str | None = None
    """What the server calculated in (`harness.answers.precision`)."""
    search: Search | None = None
    """How Server's rate was looked for, if it was."""
    occasion: Occasion = Occasion()


@dataclasses.dataclass
class _Found:
    """What the tests' logs say."""

    failures: list[str]
    reasons: list[str] = dataclasses.field(default_factory=list)
    figures: Figures | None = None
    metric: Metric | None = None
    accuracy: Accuracy | None = None
    accuracy_figures: Figures | None = None
    doubts: tuple[str, ...] = ()


def judge(prepared: Prepared, truths: Truths, test: ScenarioPlan, ended: Ended) -> Result:
    """Combine what LoadGen logged with what the workers reported.

    Args:
        prepared: the model and the data.
        truths: what the answers are compared with.
        test: the scenario as it was asked for.
        ended: as it was run.

    Raises:
        HarnessError: a log cannot be read, or the source framework cannot be run.
    """
    outcomes = ended.outcomes
    found = _judge_tests(prepared, truths, test.scenario, ended)
    config, are_here = prepared.config, ended.server.is_on_this_machine
    deviations = (*_deviations(prepared), *test.deviations(are_here), *_ended_early(outcomes))
    return Result(
        model=prepared.manifest.entry.removesuffix(f"_{config.platform}"),
        platform=config.platform.value,
        scenario=test.scenario,
        folder=ended.folder,
        kind=_kind(test, deviations),
        deviations=deviations,
        verdict=_verdict(found),
        reasons=(*found.failures, *found.reasons),
        doubts=found.doubts,
        metric=found.metric,
        accuracy=found.accuracy,
        figures=found.figures,
        accuracy_figures=found.accuracy_figures,
        tests=outcomes,
        server=ended.server,
        rules=dataclasses.asdict(test.rule),
        manifest=dataclasses.asdict(prepared.manifest),
        dataset=_dataset(prepared.dataset),
        loadgen=loadgen.version(),
        environment=environment.describe(is_anonymous=config.output.is_anonymous),
        settings=_settings(prepared, test, ended),
        args=config.to_json(),
        cmdline=shlex.join(without_secrets(sys.argv)),
        time=int(time.time()),
        precision=ended.precision,
        search=ended.search,
        rate_origin=_rate_origin(test, ended),
        invocation=ended.occasion.invocation,
        others_before=ended.occasion.others_before,
    )


def _judge_tests(prepared: Prepared, truths: Truths, scenario: Scenario, ended: Ended) -> _Found:
    folder, outcomes = ended.folder, ended.outcomes
    found = _Found([failure for outcome in outcomes.values() if (failure := _failure(outcome))])
    for mode in (mode for mode, outcome in outcomes.items() if not _failure(outcome)):
        if mode == Mode.FIND_PEAK:
            # Where it found a rate, the test that confirms it is what counts.
            found.reasons += verdict.peak_reasons(logs.read_detail(test_folder(folder, mode)))
        elif mode == Mode.ACCURACY:
            is_exact = is_full(ended.precision) and prepared.config.choice.tolerance is None
            _judge_accuracy(prepared, truths, test_folder(folder, mode), is_exact, found)
            if len(outcomes) == 1:
                log_dir = test_folder(folder, mode)
                found.accuracy_figures = _accuracy_figures(log_dir, scenario, outcomes[mode].test_s)
        elif outcomes[mode].cut_p99_ns:
            _judge_cut(test_folder(folder, mode), outcomes[mode].plan, found)
        else:
            _judge_performance(test_folder(folder, mode), scenario, outcomes[mode].test_s, found)
            found.reasons += _search_reasons(ended.search)
    return found


def _kind(test: ScenarioPlan, deviations: Sequence[str]) -> Kind:
    if not deviations:
        return Kind.OFFICIAL
    return Kind.QUICK if test.is_shortened else Kind.UNOFFICIAL


def _verdict(found: _Found) -> Verdict:
    if found.failures:
        return Verdict.FAILED
    return Verdict.INVALID if found.reasons else Verdict.VALID


def _judge_accuracy(prepared: Prepared, truths: Truths, log_dir: Path, is_exact: bool, found: _Found) -> None:
    try:
        payloads = logs.read_accuracy(log_dir)
        truth = truths.exact if is_exact else truths.near
        found.accuracy = _score(prepared, truth, payloads, is_exact)
    except InferenceError as error:
        # What was measured before is not lost for it.
        found.failures.append(str(error))
    else:
        found.reasons += _below_threshold(found.accuracy)
        found.doubts = _doubts(prepared, truth, payloads, found.accuracy.value)
    found.reasons += verdict.error_reasons(logs.read_detail(log_dir))


def _judge_performance(log_dir: Path, scenario: Scenario, test_s: float, found: _Found) -> None:
    log = logs.read_detail(log_dir)
    found.figures = Figures.of(log, scenario, test_s)
    found.metric = verdict.metric(log, scenario)
    found.reasons += verdict.reasons(log, scenario)


def _judge_cut(log_dir: Path, plan: Plan | None, found: _Found) -> None:
    """Of a test that was cut short there is no figure of LoadGen's, and so no metric."""
    assert plan is not None
    recorded = timeline.load(log_dir / timeline.FILE_NAME)
    took_s = float(recorded.completed_us.max(initial=0)) / 1e6
    found.figures = Figures.of_timeline(recorded, plan.scenario, took_s)
    latencies_us, _ = timeline.query_latencies_us(recorded, plan.scenario)
    over = int((latencies_us * 1000 > plan.server_target_latency_ns).sum())
    fastest_ms = float(latencies_us.min()) / 1e3
    found.reasons.append(
        verdict.cut_short(plan, found.figures.percentiles, ended_s=took_s, fastest_ms=fastest_ms, over=over)
    )


def _ended_early(outcomes: Mapping[Mode, Outcome]) -> Iterator[str]:
    if any(outcome.cut_p99_ns for outcome in outcomes.values()):
        yield "a test that was ended early"


def _accuracy_figures(log_dir: Path, scenario: Scenario, took_s: float) -> Figures | None:
    """How fast an accuracy test was; None where it left no timeline."""
    file = log_dir / timeline.FILE_NAME
    return Figures.of_timeline(timeline.load(file), scenario, took_s) if file.exists() else None


def _search_reasons(search: Search | None) -> list[str]:
    """Why the rate that was measured is not one that was found."""
    if search is None or search.found is not None:
        return []
    rates = [probe.rate for probe in search.probes]
    low, high = f"{min(rates):.4g}", f"{max(rates):.4g}"
    tried = f"at {low} queries/s" if low == high else f"between {low} and {high} queries/s"
    lowest = min(search.probes, key=lambda probe: probe.rate)
    return [
        f"no rate was confirmed to keep the bound, {tried}, at the lowest of which p99 was "
        f"{lowest.p99_ms:.2f} ms: relax it with --max-latency"
    ]


def _rate_origin(test: ScenarioPlan, ended: Ended) -> RateOrigin | None:
    if test.scenario != Scenario.SERVER or Mode.PERFORMANCE not in ended.outcomes:
        return None
    if ended.search is None:
        return RateOrigin.OFFERED if test.rate else RateOrigin.TRIED
    return RateOrigin.TRIED if ended.search.found is None else RateOrigin.FOUND


def _settings(prepared: Prepared, test: ScenarioPlan, ended: Ended) -> tuple[Setting, ...]:
    """Every setting of the request and of its first test as it was run."""
    plan = next((outcome.plan for outcome in ended.outcomes.values() if outcome.plan), None)
    found = [
        *settings.of_request(test.config, prepared.manifest.variant, ended.tuning),
        *settings.of_test(test, ended.tuning, plan),
    ]
    return tuple(
        Setting(one.name, one.value, one.origin, one.of, settings.is_given(test.config, one)) for one in found
    )


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


def _deviations(prepared: Prepared) -> Iterator[str]:
    """What keeps model and data from being MLPerf's."""
    dataset = prepared.dataset
    yield from of_weights(prepared.manifest.weights)
    if dataset.name == SYNTHETIC:
        yield SYNTHETIC_IMAGES
    else:
        yield from shortfalls(
            len(dataset.samples), is_complete=dataset.is_complete, has_labels=dataset.has_labels
        )


def _doubts(prepared: Prepared, truth: Truth, payloads: Mapping[int, bytes], value: float) -> tuple[str, ...]:
    variant, is_own_file = prepared.manifest.variant, prepared.config.choice.is_user_file
    if truth.origin != DATA_SET:
        return ()
    if truth.annotations and variant.detection:
        return detection_doubt.of_detections(
            payloads, truth.annotations, variant, value, is_own_file=is_own_file
        )
    return doubt.of_classes(payloads, truth.labels, variant, is_own_file=is_own_file)


def _score(prepared: Prepared, wanted: Truth, payloads: Mapping[int, bytes], is_exact: bool) -> Accuracy:
    """Score an accuracy test; labels have a threshold only for official weights on the whole data set.

    `is_exact` where the server's answers should be the source framework's but for rounding.
    """
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

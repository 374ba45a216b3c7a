"""One scenario's tests become one result: LoadGen's verdict, our failures, accuracy, and what deviates."""

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from harness import environment, loadgen, results, verdict
from harness.accuracy import Accuracy, score_classification, score_detection
from harness.client import is_on_this_host
from harness.config import SYNTHETIC, RunMode
from harness.errors import InferenceError
from harness.job import Outcome
from harness.loadgen import Mode
from harness.manifest import OFFICIAL, SEEDED
from harness.precision import BOX_AGREEMENT, is_full
from harness.preparation import DATA_SET, Prepared
from harness.results import Result
from harness.rounds import Rules, Scenario

_BOX_AGREEMENT_TOLERANCE = 0.01
"""mAP of a served model against its source framework is 1.0 but for rounding (see `harness.detections`)."""


def judge(
    prepared: Prepared,
    scenario: Scenario,
    rule: Rules,
    folder: Path,
    outcomes: dict[Mode, Outcome],
    precision: str | None = None,
) -> Result:
    """Combine what LoadGen logged with what the workers reported.

    Args:
        prepared: the model and the data.
        scenario: what was run.
        rule: what the round asks for.
        folder: where LoadGen's logs are.
        outcomes: by mode, of the tests that were started.
        precision: what the server calculated in (`harness.precision`).

    Raises:
        HarnessError: a log cannot be read, or the source framework cannot be run.
    """
    failures = [failure for outcome in outcomes.values() if (failure := _failure(outcome))]
    log, metric, accuracy = None, None, None
    reasons: list[str] = []
    for mode in (mode for mode, outcome in outcomes.items() if not _failure(outcome)):
        log_dir = results.log_dir(folder, mode)
        if mode == Mode.ACCURACY:
            try:
                accuracy = _score(prepared, log_dir, is_full(precision))
            except InferenceError as error:
                # What was measured before is not lost for it.
                failures.append(str(error))
            else:
                reasons += _below_threshold(accuracy)
            reasons += verdict.error_reasons(loadgen.read_detail(log_dir))
            continue
        log = loadgen.read_detail(log_dir)
        if mode == Mode.FIND_PEAK:
            metric, found = verdict.peak(log), verdict.peak_reasons(log)
        else:
            metric, found = verdict.metric(log, scenario), verdict.reasons(log, scenario)
        reasons += found
    config, deviations = prepared.config, _deviations(prepared, rule)
    return Result(
        model=prepared.manifest.entry.removesuffix(f"_{config.platform}"),
        platform=config.platform.value,
        scenario=scenario,
        folder=folder,
        is_official=not deviations,
        is_quick=config.is_quick,
        deviations=deviations,
        reasons=(*failures, *reasons),
        is_failed=bool(failures),
        metric=metric,
        accuracy=accuracy,
        performance_log=log,
        outcomes=outcomes,
        args=config.to_json(),
        cmdline=shlex.join(sys.argv),
        time=int(time.time()),
        precision=precision,
        details=_details(prepared, rule),
    )


def _details(prepared: Prepared, rule: Rules) -> dict[str, Any]:
    """What a result was measured with, for results.json."""
    dataset = prepared.dataset
    return {
        "rules": dataclasses.asdict(rule),
        "manifest": dataclasses.asdict(prepared.manifest),
        "dataset": {
            "name": dataset.name,
            "samples": len(dataset.samples),
            "fingerprint": dataset.fingerprint,
            "is_complete": dataset.is_complete,
        },
        "loadgen": loadgen.version(),
        "environment": environment.describe(),
    }


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


def _deviations(prepared: Prepared, rule: Rules) -> tuple[str, ...]:
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
    if config.time_s is not None:
        found.append(f"{config.time_s:g} s instead of {rule.min_duration_ms / 1000:g} s")
    elif config.count is not None:
        found.append(f"shortened to --count {config.count}")
    if config.max_latency_s:
        found.append("another latency bound than MLPerf's")
    if config.mode == RunMode.FIND_PEAK:
        found.append("a search for the peak rate")
    if not all(map(is_on_this_host, config.urls)):
        found.append("a server on another machine, as in MLPerf's Network division, whose rules are others")
    if not rule.scenario_in_round:
        found.append(f"round {rule.round} had another MultiStream, or none")
    if not rule.model_in_round:
        found.append(f"{config.model} is not a benchmark of round {rule.round}")
    return tuple(found)


def _score(prepared: Prepared, log_dir: Path, is_exact: bool) -> Accuracy:
    """Score an accuracy test; labels have a threshold only for official weights on the whole data set.

    `is_exact` where the server's answers should be the source framework's but for rounding.
    """
    payloads = loadgen.read_accuracy(log_dir)
    wanted = prepared.truth if is_exact else prepared.near_truth
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

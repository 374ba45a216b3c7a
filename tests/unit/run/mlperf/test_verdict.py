"""Judged on logs that the real LoadGen wrote, with a system under test that only waits."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import InferenceError
from harness.machine.paths import PROJECT_ROOT
from harness.run.mlperf import logs, verdict
from harness.run.mlperf.logs import DetailLog, PeakSearch
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from tests.plans import any_plan

WAITING_SUT = """
import json, sys, threading, time
from pathlib import Path
from harness.run.mlperf import loadgen
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario

fields, seconds, log_dir = json.loads(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
plan = Plan(**{**fields, "scenario": Scenario(fields["scenario"]), "mode": Mode(fields["mode"])})

def issue(ids, indices):
    early = len(ids) // 2
    loadgen.complete(ids[:early], 0, 0, [0] * early)
    time.sleep(seconds)
    loadgen.complete(ids[early:], 0, 0, [0] * (len(ids) - early))

loadgen.run(plan, log_dir, total_sample_count=64, load=lambda _: None, unload=lambda _: None,
            issue=issue, flush=lambda: None)
"""


def test_figures_that_are_no_numbers_are_read_as_missing(tmp_path: Path) -> None:
    # As LoadGen 6.0.17 writes them for a Server test of one query.
    lines = [
        ':::MLLOG {"key": "result_scheduled_samples_per_sec", "value": -nan, "metadata": {}}',
        ':::MLLOG {"key": "result_validity", "value": "INVALID", "metadata": {}}',
    ]
    (tmp_path / logs.DETAIL_LOG).write_text("\n".join(lines))
    log = logs.read_detail(tmp_path)
    assert log.number("result_scheduled_samples_per_sec") is None
    assert log.values["result_validity"] == "INVALID"


def run(tmp_path: Path, seconds: float, **changes: object) -> DetailLog:
    plan = json.dumps(dataclasses.asdict(any_plan(**changes)))
    subprocess.run(
        [sys.executable, "-c", WAITING_SUT, plan, str(seconds), str(tmp_path)], check=True, cwd=PROJECT_ROOT
    )
    return logs.read_detail(tmp_path)


def test_a_valid_run_has_a_metric_and_no_reasons(tmp_path: Path) -> None:
    log = run(tmp_path, 0.001)
    assert verdict.is_valid(log)
    assert verdict.reasons(log, Scenario.SINGLE_STREAM) == []
    metric = verdict.metric(log, Scenario.SINGLE_STREAM)
    assert metric is not None
    # Of a millisecond, on a machine that may be busy.
    assert 1.0 <= metric.value < 200.0
    assert metric.unit == "ms"


def test_too_few_queries_are_explained_with_the_number_needed(tmp_path: Path) -> None:
    log = run(tmp_path, 0.001, min_duration_ms=0, min_query_count=10)
    assert not verdict.is_valid(log)
    reason = " ".join(verdict.reasons(log, Scenario.SINGLE_STREAM))
    assert "10 queries are too few" in reason
    assert "at least 64" in reason
    assert verdict.metric(log, Scenario.SINGLE_STREAM) is None


def test_a_missed_latency_bound_is_explained_with_bound_tail_and_rate(tmp_path: Path) -> None:
    log = run(
        tmp_path,
        0.005,
        scenario=Scenario.SERVER,
        min_query_count=500,
        target_qps=400.0,
        server_target_latency_ns=1_000_000,
    )
    (reason,) = verdict.reasons(log, Scenario.SERVER)
    assert "bound 1.00 ms" in reason
    assert "(500 of 500 queries over it, 1 % allowed)" in reason
    # Each takes 5 ms, however long it waits for others; which is not known, as it might be in a batch.
    assert "lower --qps below" in reason
    assert re.search(r"; if a query alone takes as long as the fastest here, \d+\.\d\d ms, relax the", reason)


@pytest.mark.parametrize(
    ("fastest_ms", "median_ms", "is_hopeless"),
    # The last two: half of the queries have waited for others, which fewer of them would not.
    [(12, 20, True), (8, 12, True), (8, 9, False), (4, 12, False), (12, 30, False)],
)
def test_a_lower_rate_is_no_advice_where_the_median_alone_is_over_the_bound(
    fastest_ms: int, median_ms: int, is_hopeless: bool
) -> None:
    values = {
        "result_validity": "INVALID",
        "result_perf_constraints_met": False,
        "effective_target_qps": 40.0,
        "effective_target_latency_ns": 10_000_000,
        "result_min_latency_ns": fastest_ms * 1_000_000,
        "result_50.00_percentile_latency_ns": median_ms * 1_000_000,
    }
    (reason,) = verdict.reasons(DetailLog(values, (), ()), Scenario.SERVER)
    assert ("lower --qps below" not in reason) == is_hopeless
    assert (f"the median alone is {median_ms}.00 ms" in reason) == is_hopeless
    assert ("relax the bound" in reason) == (is_hopeless or fastest_ms > 10)


def test_one_query_is_one() -> None:
    values = {"result_validity": "INVALID", "early_stopping_met": False, "result_query_count": 1}
    (reason,) = verdict.reasons(DetailLog(values, (), ()), Scenario.SINGLE_STREAM)
    assert reason.startswith("1 query is too few to be sure")


@pytest.mark.parametrize(
    ("completed", "advice"),
    [(399.0, "lower --qps below 399.0"), (405.0, "lower --qps below 400.0"),
     (150.0, "lower --qps below 150.0, which is all that was answered a second of the 400.0 asked")],
)  # fmt: skip
def test_the_rate_to_stay_below_is_no_higher_than_what_was_answered(completed: float, advice: str) -> None:
    values = {
        "result_validity": "INVALID",
        "result_perf_constraints_met": False,
        "effective_target_qps": 400.0,
        "result_completed_samples_per_sec": completed,
    }
    (reason,) = verdict.reasons(DetailLog(values, (), ()), Scenario.SERVER)
    assert reason.endswith(advice)


def test_a_query_took_as_long_as_the_last_of_its_samples(tmp_path: Path) -> None:
    few = {"min_duration_ms": 0, "min_query_count": 5}
    log = run(tmp_path, 0.2, scenario=Scenario.MULTI_STREAM, samples_per_query=4, **few)
    for figure in ("mean", "50.00_percentile", "99.00_percentile"):
        assert (log.latency_ns(figure) or 0) >= 200_000_000
    # Of the samples, half of which take no time.
    assert 0 < (log.number("result_mean_latency_ns") or 0) < 0.8 * (log.latency_ns("mean") or 0)


def test_an_offline_run_that_was_too_short_names_the_rate_to_set(tmp_path: Path) -> None:
    log = run(tmp_path, 0.1, scenario=Scenario.OFFLINE, min_duration_ms=2000, target_qps=50.0)
    (reason,) = verdict.reasons(log, Scenario.OFFLINE)
    assert "of at least 2.0 s" in reason
    rate = float(reason.rsplit("--qps ", 1)[1])
    achieved = log.number("result_samples_per_second")
    assert achieved is not None
    assert rate == pytest.approx(achieved * 1.1, abs=1)


def test_a_single_stream_hint_that_is_too_high_is_explained(tmp_path: Path) -> None:
    log = run(tmp_path, 0.0, min_duration_ms=500, expected_latency_ns=20_000_000)
    reasons = " ".join(verdict.reasons(log, Scenario.SINGLE_STREAM))
    assert not verdict.is_valid(log)
    assert "ended before 0.5 s" in reasons


def test_a_search_that_ends_has_the_rate_that_it_found(tmp_path: Path) -> None:
    log = run(
        tmp_path,
        0.03,
        scenario=Scenario.SERVER,
        mode=Mode.FIND_PEAK,
        min_duration_ms=0,
        min_query_count=20,
        target_qps=10.0,
        server_target_latency_ns=300_000_000,
    )
    assert verdict.peak_reasons(log) == []
    rate = verdict.peak(log)
    assert rate is not None
    assert rate >= 10.0
    # What could be read of it while it went on.
    last = logs.peak_search(tmp_path)
    assert last is not None
    assert last.low is not None
    assert last.high is not None
    assert 10.0 <= last.low <= last.rate <= last.high


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([], None),
        (["FindPeakPerformance: Check validity of the base settings field: 12.500000"], PeakSearch(12.5)),
        (["FindBoundaries: Checking fields [12.500000, 25.000000)"], PeakSearch(25.0, 12.5)),
        (
            [
                "FindBoundaries: Checking fields [12.500000, 25.000000)",
                "FindPeakPerformanceBinarySearch: Testing the mid value of bounds [12.500000, 25.000000): "
                "18.750000",
            ],
            PeakSearch(18.75, 12.5, 25.0),
        ),
    ],
)
def test_how_far_loadgens_search_is_is_in_what_it_logged_last(
    tmp_path: Path, said: list[str], found: PeakSearch | None
) -> None:
    assert logs.peak_search(tmp_path) is None
    lines = [f':::MLLOG {{"key": "generic_message", "value": "{text}"}}\n' for text in said]
    (tmp_path / logs.DETAIL_LOG).write_text("".join(lines) + ':::MLLOG {"ke')
    assert logs.peak_search(tmp_path) == found


@pytest.mark.parametrize(
    ("bound_ns", "advice"),
    [
        (60_000_000, "start it lower than --qps 400"),
        (1_000_000, "if a query alone takes as long as the fastest here"),
    ],
)
def test_a_search_that_starts_too_high_says_what_to_do(tmp_path: Path, bound_ns: int, advice: str) -> None:
    log = run(
        tmp_path,
        0.02,
        scenario=Scenario.SERVER,
        mode=Mode.FIND_PEAK,
        min_duration_ms=0,
        min_query_count=20,
        target_qps=400.0,
        server_target_latency_ns=bound_ns,
    )
    assert verdict.peak(log) is None
    assert advice in verdict.peak_reasons(log)[0]


def test_a_log_that_loadgen_did_not_finish_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="cannot be read"):
        logs.read_detail(tmp_path)
    (tmp_path / "mlperf_log_detail.txt").write_text(':::MLLOG {"key": "x"')
    with pytest.raises(InferenceError, match="cannot be read"):
        logs.read_detail(tmp_path)

"""Which tests a search makes of a Server that is made up, and which of them becomes the result's."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.run.mlperf import logs
from harness.run.mlperf.rate_search import nearest
from harness.run.mlperf.rounds import Scenario
from harness.run.server_rate import Searcher
from harness.run.worker.job import Failures, Job, Outcome
from tests.plans import any_job, any_plan

PLAN = any_plan(
    Scenario.SERVER, min_duration_ms=10_000, min_query_count=838, server_target_latency_ns=100_000_000
)
LIMIT = 72.0


class Worker:
    """Stands for the worker: keeps the bound up to a limit, and leaves what LoadGen does."""

    def __init__(self, over: Callable[[Job], int]) -> None:
        self._over = over
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> Outcome:
        self.jobs.append(job)
        plan = job.plan
        if not job.has_hint:
            plan = dataclasses.replace(plan, target_qps=nearest(60.0))
        log_dir = Path(job.log_dir)
        log_dir.mkdir(parents=True)
        assert job.outcome == str(log_dir / "outcome.json")
        queries = max(plan.min_query_count, int(plan.target_qps * plan.min_duration_ms / 1000))
        over = self._over(dataclasses.replace(job, plan=plan))
        if over > 10 and job.probe_of:
            return Outcome(plan=plan, cut_p99_ns=150_000_000)
        values = {
            "result_validity": "VALID" if over <= 2 else "INVALID",
            "result_query_count": queries,
            "result_overlatency_query_count": over,
            "result_99.00_percentile_latency_ns": (90 + over) * 10**6,
        }
        lines = [":::MLLOG " + json.dumps({"key": key, "value": value}) for key, value in values.items()]
        (log_dir / logs.DETAIL_LOG).write_text("\n".join(lines))
        return Outcome(plan=plan)


def searcher(tmp_path: Path, over: Callable[[Job], int] | Callable[[Job], Outcome]) -> Searcher:
    log_dir = tmp_path / "performance" / "run_1"
    job = any_job(PLAN, log_dir=str(log_dir), outcome=str(log_dir / "outcome.json"), has_hint=False)
    return Searcher(job, tmp_path / "search", Worker(over))


def above_the_limit(job: Job) -> int:
    return 0 if job.plan.target_qps <= LIMIT else 11


def test_the_rate_found_is_confirmed_in_full_length_and_that_is_the_result(tmp_path: Path) -> None:
    search = searcher(tmp_path, above_the_limit)
    outcome = search.find()
    *probes, confirming = search.probes
    assert [probe.is_kept for probe in probes] == [probe.rate <= LIMIT for probe in probes]
    assert all(probe.is_cut for probe in probes if not probe.is_kept)
    assert confirming.is_confirming
    assert confirming.is_kept
    assert search.result().found == confirming.rate == max(probe.rate for probe in probes if probe.is_kept)
    assert outcome.plan == dataclasses.replace(PLAN, target_qps=confirming.rate)
    assert (tmp_path / "performance" / "run_1" / logs.DETAIL_LOG).exists()
    assert sorted(folder.name for folder in (tmp_path / "search").iterdir()) == [
        str(number + 1) for number in range(len(probes))
    ]


def test_probes_are_short_and_only_the_first_is_of_the_workers_own_rate(tmp_path: Path) -> None:
    search = searcher(tmp_path, above_the_limit)
    search.find()
    assert isinstance(search.run, Worker)
    *probes, confirming = search.run.jobs
    assert {(job.plan.min_duration_ms, job.plan.min_query_count) for job in probes} == {(10_000, 100)}
    assert [job.has_hint for job in probes] == [False] + [True] * (len(probes) - 1)
    assert len({job.segment for job in search.run.jobs}) == len(search.run.jobs)
    assert (confirming.plan.min_duration_ms, confirming.plan.min_query_count) == (10_000, 838)


@pytest.mark.parametrize(("full_s", "probe_s"), [(2, 2), (10, 10), (90, 30), (600, 60), (3600, 60)])
def test_a_probe_is_a_third_of_the_test_within_limits(tmp_path: Path, full_s: int, probe_s: int) -> None:
    search = searcher(tmp_path, above_the_limit)
    search.job = dataclasses.replace(
        search.job, plan=dataclasses.replace(PLAN, min_duration_ms=full_s * 1000)
    )
    search.find()
    assert isinstance(search.run, Worker)
    assert search.run.jobs[0].plan.min_duration_ms == probe_s * 1000


def test_a_confirming_test_that_fails_is_kept_aside_and_made_again_at_a_lower_rate(tmp_path: Path) -> None:
    # Full length shows what a few seconds do not.
    search = searcher(tmp_path, lambda job: 5 if job.plan.min_query_count == 838 else above_the_limit(job))
    search.find()
    confirming = [probe for probe in search.probes if probe.is_confirming]
    found = confirming[0].rate
    assert [probe.rate / found for probe in confirming] == pytest.approx(
        [1, 0.961, 0.924, 0.853, 0.728, 0.531, 0.282], 1e-2
    )
    assert search.result().found is None
    assert (tmp_path / "search" / str(len(search.probes) - 1)).exists()
    assert (tmp_path / "performance" / "run_1").exists()
    assert isinstance(search.run, Worker)
    # The last one runs to its end, whatever comes: its figures are the result's.
    assert [job.probe_of is None for job in search.run.jobs[-7:]] == [False] * 6 + [True]


def test_where_no_rate_keeps_the_bound_the_first_is_measured_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    search = searcher(tmp_path, lambda _: 11)
    outcome = search.find()
    assert outcome.plan is not None
    assert outcome.plan.target_qps == search.probes[0].rate == nearest(60.0)
    assert [probe.is_confirming for probe in search.probes] == [False] * 5 + [True]
    assert search.result().found is None
    assert isinstance(search.run, Worker)
    assert search.run.jobs[-1].probe_of is None
    said = [record.getMessage() for record in caplog.records]
    rate = f"{nearest(60.0):.4g} queries/s"
    assert f"Server: no rate kept the bound; measuring the first in full length: {rate}" in said
    assert not [line for line in said if "confirming" in line]


@pytest.mark.parametrize(
    "failed",
    [Outcome(error="the server is gone"), Outcome(plan=PLAN, failures=Failures(1, 1, "out of luck"))],
)
def test_a_test_that_fails_ends_the_search(tmp_path: Path, failed: Outcome) -> None:
    search = searcher(tmp_path, above_the_limit)
    worker = search.run
    search.run = lambda job: worker(job) if len(search.probes) < 2 else failed
    assert search.find() == failed
    assert len(search.probes) == 2
    assert not (tmp_path / "performance").exists()


# Of 838 queries 2 may be over, so of 300 none; of 36,000 more than 300, so of 3,600 some thirty.
@pytest.mark.parametrize(("over", "full_s", "is_kept"), [(1, 10, True), (2, 10, False), (9, 600, True)])
def test_a_probe_keeps_the_bound_where_loadgen_would_say_so_of_a_full_test(
    tmp_path: Path, over: int, full_s: int, is_kept: bool
) -> None:
    search = searcher(tmp_path, lambda job: over if job.plan.target_qps <= LIMIT else 11)
    search.job = dataclasses.replace(
        search.job, plan=dataclasses.replace(PLAN, min_duration_ms=full_s * 1000)
    )
    search.find()
    assert search.probes[0].is_kept == is_kept
    assert search.probes[0].p99_ms == 90 + over


def test_a_test_with_too_few_queries_to_be_valid_is_not_made_again(tmp_path: Path) -> None:
    search = searcher(tmp_path, lambda _: 5)
    search.job = dataclasses.replace(search.job, plan=dataclasses.replace(PLAN, min_query_count=100))
    search.confirm([40.0, 39.0])
    assert [probe.rate for probe in search.probes] == [40.0]
    assert (tmp_path / "performance" / "run_1").exists()

"""LoadGen's schedule, calculated again, against LoadGen itself, which runs in a process of its own."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from harness.machine import paths
from harness.run.mlperf import logs, schedule
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.results import peak, punctuality
from harness.run.worker import timeline

PLAN = Plan(
    scenario=Scenario.SERVER,
    mode=Mode.PERFORMANCE,
    min_duration_ms=500,
    min_query_count=100,
    performance_sample_count=16,
    samples_per_query=1,
    server_target_latency_ns=40_000_000,
    qsl_seed=2085463073848966840,
    sample_index_seed=2747215439041700203,
    schedule_seed=16159082839903944936,
    target_qps=400.0,
)
SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from harness.machine.from_json import loads
from harness.run.mlperf import loadgen
from harness.run.mlperf.plan import Plan
from harness.run.worker.timeline import FILE_NAME, Timeline

plan, folder = loads(Plan, sys.argv[1]), Path(sys.argv[2])
recorder, payload = Timeline(), np.zeros(1, np.float32)

def issue(response_ids, indices):
    issued_ns = time.perf_counter_ns()
    time.sleep(0.001)
    recorder.record(issued_ns, time.perf_counter_ns(), 1)
    loadgen.complete(response_ids, payload.ctypes.data, 4, [4])

nothing = lambda *_: None
loadgen.run(plan, folder, total_sample_count=16, load=nothing, unload=nothing, issue=issue, flush=nothing)
recorder.save(folder / FILE_NAME)
"""


def run_loadgen(plan: Plan, folder: Path) -> timeline.Recorded:
    """A test of a system that answers a query a millisecond after the one before."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(asdict(plan)), str(folder)]
    subprocess.run(command, cwd=paths.PROJECT_ROOT, check=True, capture_output=True, timeout=120)
    return timeline.load(folder / timeline.FILE_NAME)


def test_latencies_from_the_schedule_are_loadgens_own(tmp_path: Path) -> None:
    recorded = run_loadgen(PLAN, tmp_path)
    log = logs.read_detail(tmp_path)
    assert len(recorded.issued_us) == schedule.query_count(PLAN) == log.number("result_query_count")
    found = punctuality.of_test(recorded, PLAN, (log.latency_ns("mean") or 0) / 1e3)
    assert found is not None
    assert found.late_us.min() == 0
    # At every percentile, not only at the mean, by which it was recognised.
    for level in (50, 90, 99):
        theirs_ms = (log.latency_ns(f"{level}.00_percentile") or 0) / 1e6
        ours_ms = float(np.sort(found.latencies_us)[int(len(found.latencies_us) * level / 100)]) / 1e3
        assert ours_ms == pytest.approx(theirs_ms, abs=0.5, rel=0.02)


def test_a_schedule_of_another_rate_or_seed_is_not_taken_for_the_tests_own(tmp_path: Path) -> None:
    count = 500
    issued_us = schedule.due_ns(PLAN, count) // 1000
    recorded = timeline.Recorded(issued_us, issued_us + 2_000, np.ones(count, np.uint32))
    assert punctuality.of_test(recorded, PLAN, 2_000.0) is not None
    for other in (replace(PLAN, target_qps=410.0), replace(PLAN, schedule_seed=7)):
        assert punctuality.of_test(recorded, other, 2_000.0) is None
    assert punctuality.of_test(recorded, replace(PLAN, mode=Mode.FIND_PEAK), 2_000.0) is None
    assert punctuality.of_test(None, PLAN, 2_000.0) is None


def test_a_query_that_was_asked_late_is_late_and_its_latency_has_that_too() -> None:
    due_us = schedule.due_ns(PLAN, 100) // 1000
    late_us = np.where(np.arange(100) == 40, 7_000, 0)
    recorded = timeline.Recorded(due_us + late_us, due_us + late_us + 3_000, np.ones(100, np.uint32))
    found = punctuality.against_schedule(recorded, PLAN)
    assert sorted(set(found.late_us.tolist())) == [0, 7_000]
    assert int(found.latencies_us.max()) == 10_000


def test_each_test_of_loadgens_search_is_told_apart(tmp_path: Path) -> None:
    plan = replace(PLAN, mode=Mode.FIND_PEAK, target_qps=200.0, min_duration_ms=300)
    recorded, log = run_loadgen(plan, tmp_path), logs.read_detail(tmp_path)
    found = peak.probes(log, recorded, plan)
    assert found[0].rate == 200.0
    assert [probe.rate for probe in found] == peak.rates(log.messages)
    assert all(probe.p99_ms >= 1.0 for probe in found)
    broken = [probe for probe in found if not probe.is_kept]
    # A thousand queries a second are the most that it can answer, so that the search has an end.
    assert broken
    assert all(probe.p99_ms > 40 for probe in broken)
    if len(found) > 1:
        assert [probe.rate for probe in found[:2]] == [200.0, 400.0]
        assert all(probe.p99_ms <= 40.5 for probe in found if probe.is_kept)
    # A timeline of other requests is not taken for these.
    fewer = timeline.Recorded(recorded.issued_us[1:], recorded.completed_us[1:], recorded.samples[1:])
    assert peak.probes(log, fewer, plan) == ()

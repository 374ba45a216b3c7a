"""What runner and worker tell each other comes back as it was told."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from harness.errors import InferenceError
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import job as job_module
from harness.run.worker.books import Book
from harness.run.worker.job import (
    Counts,
    Failures,
    Job,
    Outcome,
    Reporter,
    Status,
    Step,
    read_job,
    read_outcome,
    read_status,
    write_outcome,
)
from harness.triton.address import Address, Header, Tls
from harness.triton.rpc import Rpc
from harness.triton.statistics import ServerStatistics

STATISTICS = ServerStatistics(
    requests=800,
    failures=1,
    samples=801,
    executions=600,
    queue_ns=2**40,
    compute_input_ns=3,
    compute_infer_ns=5,
    compute_output_ns=7,
    executions_by_batch_size={1: 450, 2: 100, 16: 50},
    executions_ns=11,
)


def plan_of(scenario: Scenario, mode: Mode = Mode.PERFORMANCE) -> Plan:
    return Plan(
        scenario,
        mode,
        min_duration_ms=600_000,
        min_query_count=270_336,
        performance_sample_count=1024,
        samples_per_query=8,
        server_target_latency_ns=15_000_000,
        qsl_seed=2085463073848966840,
        sample_index_seed=2**64 - 1,
        schedule_seed=0,
        target_qps=175.25,
        expected_latency_ns=7_654_321,
    )


def job_of(plan: Plan, outcome: Path = Path("/results/outcome.json")) -> Job:
    return Job(
        servers=(
            Address("127.0.0.1:8001"),
            Address("grpcs://[::1]:9001", Rpc.GRPC, Tls(ca="/ca.pem"), (Header("key", "", "$KEY"),)),
        ),
        processes=3,
        entry="mobilenet_onnxruntime",
        entry_dir="/models/mobilenet_onnxruntime",
        graph_sha256="7aa7ed86656d7f38",
        samples="/cache/samples.npy",
        log_dir="/results/performance",
        outcome=str(outcome),
        transport="auto",
        segment="mlperf-1",
        client_batch=4,
        in_flight=2048,
        timeout_s=60.5,
        plan=plan,
        has_hint=True,
    )


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("precision", [None, "bf16"])
def test_a_job_is_read_as_it_was_written(
    scenario: Scenario, mode: Mode, precision: str | None, tmp_path: Path
) -> None:
    job = dataclasses.replace(job_of(plan_of(scenario, mode)), precision=precision)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(dataclasses.asdict(job)))
    read = read_job(file)
    assert read == job
    assert (type(read.plan.scenario), type(read.plan.mode)) == (Scenario, Mode)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(),
        Outcome(
            error="64 requests failed; first failure: …", failures=Failures(64, 64, "…", (3, 5, 7), True)
        ),
        *(
            Outcome(
                plan=plan_of(scenario),
                calibration="calibration: …",
                transport="shm",
                statistics=STATISTICS,
                books=(
                    Book("127.0.0.1:8001", 400, 300, 0, 400, 300, 200, 0, 7),
                    Book("[::1]:9001", 401, 301, 1, 402, 302, 201, 3, 8),
                ),
                test_s=600.25,
                client_cpu_s=1.5,
                peak_rss_bytes=2**33,
            )
            for scenario in Scenario
        ),
        Outcome(plan=plan_of(Scenario.OFFLINE, Mode.ACCURACY), statistics=None),
    ],
    ids=lambda outcome: (
        f"{outcome.plan.scenario} {outcome.plan.mode}" if outcome.plan else str(outcome.error)
    ),
)
def test_an_outcome_is_read_as_it_was_written(outcome: Outcome, tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    write_outcome(job_of(plan_of(Scenario.SERVER), file), outcome)
    assert read_outcome(file) == outcome
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", [None, "", '{"error": "", "failu'], ids=["none", "empty", "cut off"])
def test_an_outcome_that_is_not_there_says_that_the_worker_died(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InferenceError, match="the process that ran LoadGen died without a word"):
        read_outcome(file)


def test_where_no_outcome_can_be_written_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_outcome(job_of(plan_of(Scenario.SERVER), tmp_path / "no" / "outcome.json"), Outcome())
    assert "cannot write" in caplog.text
    assert "outcome.json" in caplog.text


@pytest.mark.parametrize("counts", [Counts(), Counts(1200, 1200, 301, 64)])
@pytest.mark.parametrize("step", Step)
def test_a_status_is_read_as_it_was_told(step: Step, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "_EVERY_S", 0.001)
    reading, writing = os.pipe()
    with open(reading) as lines:  # noqa: PTH123 - a descriptor has no path
        reporter = Reporter(writing)
        reporter.begin(step, lambda: counts)
        with reporter:
            status = read_status(lines.readline())
        os.close(writing)
    assert status == Status(step, status.elapsed_s, counts)
    assert type(status.step) is Step
    assert 0 <= status.elapsed_s < 600

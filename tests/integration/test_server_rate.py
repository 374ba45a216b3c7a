"""Server's rate with a real server: a test that is cut short, the one that counts, and what a run says."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.machine.kernel import SHM_DIR
from harness.models import MODELS
from harness.run import runner
from harness.run.mlperf import logs
from harness.run.mlperf.early_stopping import most_over_in
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.server_rate import Searcher
from harness.run.worker import timeline
from harness.run.worker.job import Job, Outcome
from harness.triton.client import TritonClient
from tests.integration.test_faults import SAMPLES, add_faulty
from tests.integration.worker_process import job_of, plan_of


@pytest.fixture
def new_searcher(triton, client, tmp_path: Path) -> Iterator[Callable[..., Searcher]]:
    """`new_searcher(name, service_s, length_ms, bound_ms)`: a search whose tests are in the folder `name`.

    On a server that is as fast on any machine: each request sleeps.
    """
    entry = add_faulty(triton.repository, f"slow_{tmp_path.name}", "hang")
    model = entry / "1" / "model.py"
    source = model.read_text()
    (entry / "trigger").touch()
    samples = tmp_path / "samples.npy"
    np.save(samples, np.zeros((SAMPLES, 3, 224, 224), np.float32))
    with TritonClient(triton.grpc_url) as ours:

        def run(job: Job) -> Outcome:
            Path(job.log_dir).mkdir(parents=True)
            return runner.run_test(job, [ours])

        def new(name: str, service_s: float, length_ms: int, bound_ms: int) -> Searcher:
            model.write_text(source.replace("3600", str(service_s)))
            client.load_model(entry.name)
            plan = plan_of(
                MODELS["mobilenet"],
                Scenario.SERVER,
                Mode.PERFORMANCE,
                min_duration_ms=length_ms,
                min_query_count=459,
                performance_sample_count=SAMPLES,
            )
            plan = dataclasses.replace(plan, server_target_latency_ns=bound_ms * 10**6)
            job = job_of(triton, entry, samples, plan, tmp_path / name / "performance" / "run_1")
            return Searcher(job, tmp_path / name / "search", run)

        yield new
    client.unload_model(entry.name)


def test_a_rate_that_is_too_high_is_cut_short_and_a_lower_one_is_confirmed(new_searcher, client) -> None:
    searcher = new_searcher("one", 0.004, 4000, 2000)
    job = searcher.job
    outcome = searcher.confirm([1000.0, 100.0])
    assert not [name for name in client.get_system_shared_memory_status().regions if job.segment in name]
    assert [(probe.rate, probe.is_kept, probe.is_cut) for probe in searcher.probes] == [
        (1000.0, False, True),
        (100.0, True, False),
    ]
    assert searcher.probes[0].p99_ms > 2000
    assert outcome.error == ""
    assert outcome.plan == dataclasses.replace(job.plan, target_qps=100.0)
    assert logs.read_detail(Path(job.log_dir)).values["result_validity"] == "VALID"
    assert not list(SHM_DIR.glob(f"{job.segment}*"))


def test_a_rate_that_was_given_is_cut_short_too_and_what_was_answered_is_kept(new_searcher) -> None:
    searcher = new_searcher("early", 0.004, 4000, 2000)
    plan = dataclasses.replace(searcher.job.plan, target_qps=1000.0)
    ended = searcher.run(dataclasses.replace(searcher.job, plan=plan, ends_early=True))
    assert ended.error == ""
    assert ended.cut_p99_ns > plan.server_target_latency_ns
    recorded = timeline.load(Path(searcher.job.log_dir) / timeline.FILE_NAME)
    latencies_us = recorded.completed_us.astype(np.int64) - recorded.issued_us
    assert (latencies_us > 2_000_000).sum() > most_over_in(ended.plan)
    assert latencies_us.min() > 1000


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_searches_on_a_server_that_stays_as_fast_agree_within_5_percent(new_searcher) -> None:
    found = []
    for name in ("one", "another"):
        searcher = new_searcher(name, 0.02, 10_000, 500)
        searcher.find()
        found.append(searcher.result().found)
    assert min(found) > 25
    assert max(found) < 1.05 * min(found), found


def test_a_bound_that_no_rate_keeps_ends_the_search_at_once_and_that_is_said(
    run_harness, repository_server, tmp_path: Path
) -> None:
    ended = run_harness(
        *("--model", "mobilenet", "--platform", "onnxruntime", "--weights", "seeded", "--count", "32"),
        *("--scenario", "Server", "--time", "0.5", "--queries-multi", "20", "--max-latency", "0.0001"),
        *("--dataset", "synthetic", "--url", repository_server.grpc_url, "--output", tmp_path),
    )
    assert ended.returncode == 1, ended.stderr
    assert "Server, tried" in ended.stdout
    assert "no rate was confirmed to keep the bound" in ended.stdout
    (folder,) = tmp_path.glob("*_Server")
    result = json.loads((folder / "results.json").read_text())
    assert [(probe["is_cut"], probe["is_confirming"]) for probe in result["search"]["probes"]] == [
        (True, False),
        (False, True),
    ]
    assert 'id="probes"' in (folder / "report.html").read_text()
    shutil.rmtree(folder)

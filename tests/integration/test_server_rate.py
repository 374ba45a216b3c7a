"""Server's rate with a real server: a test that is cut short, the one that counts, and what a run says."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np

from harness.machine.kernel import SHM_DIR
from harness.models import MODELS
from harness.run import runner
from harness.run.mlperf import logs
from harness.run.mlperf.early_stopping import most_over_in
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.server_rate import Searcher
from harness.run.worker import timeline
from harness.triton.client import TritonClient
from tests.integration.test_faults import SAMPLES, add_faulty
from tests.integration.worker_process import job_of, plan_of


def test_a_rate_that_is_too_high_is_cut_short_and_a_lower_one_is_confirmed(
    triton, client, tmp_path: Path
) -> None:
    entry = add_faulty(triton.repository, "slow", "hang")
    model = entry / "1" / "model.py"
    # Each request takes 4 ms: at most 250 are answered in a second.
    model.write_text(model.read_text().replace("3600", "0.004"))
    (entry / "trigger").touch()
    samples = tmp_path / "samples.npy"
    np.save(samples, np.zeros((SAMPLES, 3, 224, 224), np.float32))
    plan = plan_of(
        MODELS["mobilenet"],
        Scenario.SERVER,
        Mode.PERFORMANCE,
        min_duration_ms=4000,
        min_query_count=459,
        performance_sample_count=SAMPLES,
    )
    plan = dataclasses.replace(plan, server_target_latency_ns=2 * 10**9)
    run_1 = tmp_path / "performance" / "run_1"
    job = job_of(triton, entry, samples, plan, run_1)
    client.load_model(entry.name)
    with TritonClient(triton.grpc_url) as ours:

        def run(job):
            Path(job.log_dir).mkdir(parents=True)
            return runner.run_test(job, [ours])

        searcher = Searcher(job, tmp_path / "search", run)
        outcome = searcher.confirm([1000.0, 100.0])
        early = job_of(
            triton, entry, samples, dataclasses.replace(plan, target_qps=1000.0), tmp_path / "early"
        )
        ended = run(dataclasses.replace(early, ends_early=True))
    assert not client.get_system_shared_memory_status().regions
    client.unload_model(entry.name)
    assert [(probe.rate, probe.is_kept, probe.is_cut) for probe in searcher.probes] == [
        (1000.0, False, True),
        (100.0, True, False),
    ]
    assert searcher.probes[0].p99_ms > 2000
    # One that was asked for is cut in the same way, and what was answered until then is kept.
    assert (ended.error, ended.transport) == ("", outcome.transport)
    assert ended.cut_p99_ns > plan.server_target_latency_ns
    recorded = timeline.load(tmp_path / "early" / timeline.FILE_NAME)
    latencies_us = recorded.completed_us.astype(np.int64) - recorded.issued_us
    assert (latencies_us > 2_000_000).sum() > most_over_in(ended.plan)
    assert latencies_us.min() > 1000
    assert outcome.error == ""
    assert outcome.plan == dataclasses.replace(plan, target_qps=100.0)
    assert logs.read_detail(run_1).values["result_validity"] == "VALID"
    assert not list(SHM_DIR.glob(f"{job.segment}*"))


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

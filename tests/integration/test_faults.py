"""Whatever fails, LoadGen ends, the result says what failed, and nothing is left behind."""

import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.models import MODELS, manifest
from harness.models.manifest import Manifest, Parity
from harness.models.model_config import ServerSettings, model_config, to_text
from harness.models.platforms import Platform
from harness.run.mlperf import logs
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.job import Outcome
from harness.server import lifecycle
from harness.triton.client import TritonClient
from tests.integration.worker_process import outcome_in, plan_of, start_worker

VARIANT = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
FAULTY = (Path(__file__).parent / "faulty_model.py").read_text()
SAMPLES = 16


def add_faulty(repository: Path, name: str, fault: str) -> Path:
    """An entry whose model fails once its folder has a file `trigger`."""
    entry = repository / name
    (entry / "1").mkdir(parents=True)
    source = FAULTY.replace("{fault}", fault).replace("{trigger}", str(entry / "trigger"))
    (entry / "1" / "model.py").write_text(source)
    config = model_config(name, VARIANT, ServerSettings(max_batch_size=8))
    config.backend, config.platform, config.default_model_filename = "python", "", "model.py"
    del config.model_warmup[:]
    (entry / "config.pbtxt").write_text(to_text(config))
    output = VARIANT.requested_outputs[0].name
    scores = np.zeros((1, 1001), np.float32)
    scores[:, 66] = 1
    np.savez(
        entry / "golden.npz", **{"input": np.zeros((1, 3, 224, 224), np.float32), f"output:{output}": scores}
    )
    facts = Manifest(
        name, "mobilenet", "seeded", "none", "0" * 64, VARIANT, Parity(1, 0.0, 1.0, 1.0), "0", {}
    )
    manifest.save(facts, entry)
    return entry


@dataclasses.dataclass
class Ended:
    outcome: Outcome
    seconds: float
    """From the fault to the worker's end."""


@pytest.fixture
def own_server(tmp_path: Path):
    """A server that may be harmed, and its repository."""
    repository = tmp_path / "repository"
    repository.mkdir()
    state_dir = tmp_path / "server"
    info = lifecycle.start(repository, state_dir=state_dir, die_with_parent=True)
    yield info
    lifecycle.stop(info, state_dir)


@pytest.fixture
def run_worker(tmp_path: Path):
    """Run one LoadGen test against an entry, in the worker's own process."""
    samples = tmp_path / "samples.npy"
    np.save(samples, np.zeros((SAMPLES, 3, 224, 224), np.float32))

    def run(
        info: lifecycle.ServerInfo,
        entry: Path,
        scenario: Scenario,
        fault: Callable[[], object],
        *,
        seconds: float = 600,
        timeout_s: float = 30.0,
        processes: int = 1,
    ) -> Ended:
        """Load the entry, start the test, call `fault` half a second after LoadGen began."""
        with TritonClient(info.grpc_url) as client:
            client.load(entry.name, None)
        plan = plan_of(
            MODELS["mobilenet"],
            scenario,
            Mode.PERFORMANCE,
            min_duration_ms=int(seconds * 1000),
            min_query_count=64,
            performance_sample_count=SAMPLES,
            target_qps=200.0,
            expected_latency_ns=500_000,
        )
        log_dir = tmp_path / "log"
        log_dir.mkdir()
        worker = start_worker(info, entry, samples, plan, log_dir, timeout_s=timeout_s, processes=processes)
        while not (log_dir / logs.DETAIL_LOG).exists():
            assert worker.poll() is None, outcome_in(log_dir)
            time.sleep(0.05)
        time.sleep(0.5)
        fault()
        began = time.monotonic()
        worker.wait(timeout=400)
        return Ended(outcome_in(log_dir), time.monotonic() - began)

    return run


@pytest.mark.parametrize("scenario", [Scenario.SINGLE_STREAM, Scenario.SERVER, Scenario.OFFLINE])
def test_a_model_that_begins_to_fail_ends_the_run(triton, run_worker, scenario: Scenario) -> None:
    entry = add_faulty(triton.repository, f"error-{scenario}", "error")
    ended = run_worker(triton, entry, scenario, (entry / "trigger").touch)
    failures = ended.outcome.failures
    assert failures.requests >= 1, ended.outcome
    assert "out of luck" in failures.first
    assert len(failures.first_sample_indices) == 1
    assert ended.seconds < 300
    # What Triton says before it crashes, where a stream's failures are asked for as gRPC's status.
    assert "HandleCancellation called" not in triton.log.read_text()


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("one error", "out of luck"),
        ("shape", r"FP32 (1, 1000)"),
        ("dtype", "FP64"),
        ("nan", "NaN or infinite"),
    ],
)
def test_a_wrong_answer_is_a_failure(triton, run_worker, fault: str, complaint: str) -> None:
    entry = add_faulty(triton.repository, f"wrong-{fault.replace(' ', '-')}", fault)
    outcome = run_worker(triton, entry, Scenario.SINGLE_STREAM, (entry / "trigger").touch, seconds=3).outcome
    assert complaint in outcome.failures.first
    assert (outcome.failures.requests == 1) is (fault == "one error")


def test_an_answer_that_never_comes_is_a_failure_at_its_deadline(own_server, run_worker) -> None:
    entry = add_faulty(own_server.repository, "hang", "hang")
    ended = run_worker(
        own_server, entry, Scenario.SINGLE_STREAM, (entry / "trigger").touch, seconds=5, timeout_s=2
    )
    # Triton 2.51 finds the stub of a busy machine dead now and then, which sleeps.
    assert re.search("DEADLINE_EXCEEDED|is not healthy", ended.outcome.failures.first)
    assert ended.seconds < 300


@pytest.mark.parametrize("scenario", [Scenario.SINGLE_STREAM, Scenario.SERVER, Scenario.OFFLINE])
def test_a_server_that_is_killed_ends_the_run_at_once(own_server, run_worker, scenario: Scenario) -> None:
    entry = add_faulty(own_server.repository, "killed", "none")
    ended = run_worker(own_server, entry, scenario, lambda: os.kill(own_server.pid, signal.SIGKILL))
    assert ended.seconds < 300, "the test is of ten minutes"
    assert ended.outcome.failures.is_fatal
    assert "UNAVAILABLE" in ended.outcome.failures.first
    assert not list(Path("/dev/shm").glob(f"test-{os.getpid()}-*"))


def test_a_client_process_that_dies_ends_the_run_at_once(triton, run_worker) -> None:
    entry = add_faulty(triton.repository, "client-dies", "none")
    ended = run_worker(triton, entry, Scenario.OFFLINE, lambda: client_processes()[0].kill(), processes=2)
    assert ended.seconds < 300, "the test is of ten minutes"
    assert "a client process has ended" in ended.outcome.failures.first
    assert not client_processes()


def test_client_processes_report_a_failed_answer(own_server, run_worker) -> None:
    entry = add_faulty(own_server.repository, "wrong", "one error")
    outcome = run_worker(
        own_server, entry, Scenario.SERVER, (entry / "trigger").touch, seconds=3, processes=2
    ).outcome
    assert outcome.failures.requests == 1
    assert "out of luck" in outcome.failures.first
    assert not outcome.failures.is_fatal


def client_processes() -> list[psutil.Process]:
    """Those of this session."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        and "harness.run.worker.client_process" in process.cmdline()
    ]

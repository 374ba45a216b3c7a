"""Samples of 17 MB and answers of any size, through the real server: right, and in bounded memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.answers.payloads import records_of
from harness.machine.kernel import peak_rss_bytes
from harness.models import MODELS, manifest
from harness.models.manifest import Manifest, Parity
from harness.models.model_config import model_config, to_text
from harness.models.platforms import Platform
from harness.run.mlperf import logs
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.job import Outcome
from harness.server import lifecycle
from harness.triton.client import TritonClient
from tests.integration.worker_process import outcome_in, plan_of, start_worker

SPEC = MODELS["ssd-resnet34"]
VARIANT = SPEC.variants[Platform.ONNXRUNTIME]
SAMPLES, LOADED = 24, 4
MODEL = Path(__file__).parent / "boxes_model.py"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that differ in their first number, written without 400 MB in this process."""
    path = tmp_path_factory.mktemp("samples") / "samples.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (SAMPLES, *VARIANT.input.shape))
    array[:, 0, 0, 0] = np.arange(SAMPLES)
    array.flush()
    return path


@pytest.fixture(scope="module")
def entry(triton: lifecycle.ServerInfo) -> Path:
    folder = triton.repository / "boxes"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(MODEL.read_text())
    config = model_config(folder.name, VARIANT)
    config.backend, config.platform, config.default_model_filename = "python", "", "model.py"
    (folder / "config.pbtxt").write_text(to_text(config))
    image = np.zeros((1, *VARIANT.input.shape), np.float32)
    image[0, 0, 0, 0] = 1
    detections = np.array([[0, 0.2, 0.1, 0.4, 0.3, 0.5, 2]], np.float32)
    np.savez(folder / "golden.npz", input=image, detections=detections)
    facts = Manifest(folder.name, SPEC.name, "seeded", "none", "0" * 64, VARIANT, Parity(1, 0, 0, 1), "0", {})
    manifest.save(facts, folder)
    with TritonClient(triton.grpc_url) as client:
        client.load(folder.name, None)
    return folder


@pytest.fixture
def run_accuracy(triton: lifecycle.ServerInfo, entry: Path, samples: Path, tmp_path: Path):
    """Run one accuracy test in the worker's own process; its outcome, and the log's payloads by sample."""

    def run(transport: str) -> tuple[Outcome, dict[int, bytes]]:
        plan = plan_of(
            SPEC,
            Scenario.OFFLINE,
            Mode.ACCURACY,
            min_duration_ms=0,
            min_query_count=SAMPLES,
            performance_sample_count=LOADED,
        )
        worker = start_worker(triton, entry, samples, plan, tmp_path, transport=transport)
        worker.wait(timeout=120)
        return outcome_in(tmp_path), logs.read_accuracy(tmp_path)

    return run


@pytest.mark.parametrize("transport", ["shm", "grpc"])
def test_every_image_gets_its_own_boxes_and_memory_is_bounded_by_the_loaded_samples(
    run_accuracy: Callable, triton: lifecycle.ServerInfo, transport: str
) -> None:
    before = server_peak_rss_bytes(triton.pid)
    outcome, payloads = run_accuracy(transport)
    assert outcome.error == ""
    assert outcome.transport == transport
    assert outcome.failures.requests == 0, outcome.failures
    assert sorted(payloads) == list(range(SAMPLES))
    for index, payload in payloads.items():
        expected = [index, 0.2, 0.1, 0.4, 0.3, 0.5, 1 + index % 80]
        assert records_of(payload).tolist() == [pytest.approx(expected)] * (index % 4)
    loaded = LOADED * VARIANT.input.sample_bytes
    everything = SAMPLES * VARIANT.input.sample_bytes
    # The client: the loaded samples twice where they travel in messages (ours, gRPC's), and Python itself.
    assert outcome.peak_rss_bytes < 2 * loaded + 150e6 < everything
    assert server_peak_rss_bytes(triton.pid) - before < 3 * loaded + 50e6 < everything


def server_peak_rss_bytes(pid: int) -> int:
    """Of a server and its stubs."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(peak_rss_bytes(process.pid) for process in processes)

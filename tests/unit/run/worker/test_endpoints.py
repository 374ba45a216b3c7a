"""What a job becomes before anything is asked; with servers, see tests/integration."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import InferenceError
from harness.models import MODELS, manifest
from harness.models.manifest import Manifest, Parity
from harness.models.platforms import Platform
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.endpoints import Meter, Session, connected
from harness.run.worker.job import Job
from harness.run.worker.qsl import CountedSamples, MessageStore, SampleLibrary
from tests.plans import any_job

VARIANT = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]


def job_of(entry_dir: Path, in_flight: int = 4) -> Job:
    return any_job(
        Plan(Scenario.OFFLINE, Mode.PERFORMANCE, 1000, 1, 16, 1, 10**8, 1, 2, 3),
        entry_dir=str(entry_dir),
        graph_sha256="1" * 64,
        samples=str(entry_dir / "samples.npy"),
        transport="grpc",
        client_batch=2,
        in_flight=in_flight,
    )


def test_an_entry_that_was_converted_again_is_not_asked(tmp_path: Path) -> None:
    other = Manifest(
        "an_entry", "mobilenet", "seeded", "", "0", VARIANT, Parity(1, 0.0, 1.0, 1.0), "2" * 64, {}
    )
    manifest.save(other, tmp_path)
    with (
        pytest.raises(InferenceError, match="was converted again by another process: run again"),
        connected(job_of(tmp_path)),
    ):
        pytest.fail("it was")


@pytest.mark.parametrize(
    ("servers", "endpoints", "in_flight", "slots"),
    [(1, 1, 4, 4), (2, 2, 4, 8), (1, 2, 4, 4), (2, 3, 5, 12), (1, 4, 1, 4)],
)
def test_the_endpoints_share_what_may_be_under_way_at_the_servers(
    tmp_path: Path, servers: int, endpoints: int, in_flight: int, slots: int
) -> None:
    samples = CountedSamples(np.zeros((16, *VARIANT.input.shape), np.float32))
    library = SampleLibrary(samples, MessageStore("an_entry", VARIANT, 2))
    loop = asyncio.new_event_loop()
    job = job_of(tmp_path, in_flight)
    session = Session(
        job, VARIANT, [None] * servers, ["grpc"] * servers, samples, library, loop, [None] * endpoints
    )
    sut = session.sut(lambda *_: None)
    loop.close()
    assert [slot.endpoint for slot in sut.slots] == sorted([*range(endpoints)] * (slots // endpoints))
    # A label for each of two samples.
    assert {slot.payload.shape for slot in sut.slots} == {(2, 1)}


def test_how_many_samples_were_read_is_counted_while_they_are_loaded() -> None:
    samples = CountedSamples(np.zeros((4, *VARIANT.input.shape), np.float32))
    SampleLibrary(samples, MessageStore("an_entry", VARIANT, 1)).load([3, 0, 3])
    assert (samples.read, len(samples)) == (3, 4)


def test_loading_samples_is_no_part_of_a_tests_time() -> None:
    cpu_s = 5.0
    began = time.monotonic()
    meter = Meter(lambda: cpu_s)
    cpu_s += 1
    loaded: list[int] = []

    def load(indices: list[int]) -> None:
        nonlocal cpu_s
        loaded.extend(indices)
        cpu_s += 7
        time.sleep(0.25)

    loading = meter.leaving_out(load)
    loading([1, 2])
    cpu_s += 2
    loading([3])
    test_s, test_cpu_s = meter.read()
    assert loaded == [1, 2, 3]
    assert test_cpu_s == 3
    assert 0 <= test_s <= time.monotonic() - began - 0.5

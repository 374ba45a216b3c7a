"""What everybody writes, a loop around `async_infer`: `python -m harness.bench.plain JOB.json`.

As tritonclient's documentation shows it: an InferInput and an InferRequestedOutput per request, set from a
NumPy array, and a callback that reads the answer with `as_numpy`. One sample is one request. It asks what
LoadGen's scenario asks, in Server at the very times at which LoadGen did: chance arrivals of its own would
form other queues. Being about tritonclient, it imports that, as `harness.triton.client` does.
"""

import dataclasses
import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from harness.bench.limit.bare import read_rows
from harness.bench.limit.frameworks import Array
from harness.errors import InferenceError
from harness.machine.from_json import loads
from harness.models import manifest
from harness.models.spec import Variant
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline
from harness.triton import statistics
from harness.triton.client import TritonClient

_WARM_UP_S = 0.5
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class PlainJob:
    """One measurement."""

    url: str
    entry: str
    entry_dir: str
    samples: str
    """The preprocessed samples, a .npy file."""
    scenario: Scenario
    in_flight: int
    """Offline: requests under way."""
    samples_per_query: int
    arrivals: str
    """Server: the timeline of the test whose queries are sent again, each when it came."""
    seconds: float
    """Of the other scenarios."""
    outcome: str
    """Path that the outcome is written to."""


@dataclass(frozen=True)
class PlainOutcome:
    """What was measured; latencies are of queries."""

    samples: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    client_cpu_s: float
    mean_batch_size: float
    """Of what the server executed."""


@dataclass
class _Tally:
    """What the callbacks note."""

    latencies_ns: list[int] = field(default_factory=list)
    last_ns: int = 0
    error: str = ""


class _Loop:
    """One client and the samples that it sends in turn."""

    def __init__(self, client: InferenceServerClient, job: PlainJob, variant: Variant, rows: Array) -> None:
        self._client, self._job, self._variant, self._rows = client, job, variant, rows
        self._next = 0
        self.tally = _Tally()

    def send(self, done: Callable[[], None]) -> None:
        """Send one sample; `done` is called when its answer was read."""
        source = self._variant.input
        sample = self._rows[self._next % len(self._rows)][np.newaxis]
        self._next += 1
        tensor = InferInput(source.name, sample.shape, source.dtype.triton)
        tensor.set_data_from_numpy(sample)
        outputs = [InferRequestedOutput(output.name) for output in self._variant.requested_outputs]
        callback = functools.partial(self._on_answer, done)
        self._client.async_infer(self._job.entry, [tensor], callback, outputs=outputs)

    def _on_answer(self, done: Callable[[], None], result: Any, error: Any) -> None:
        if error is None and any(result.as_numpy(o.name) is None for o in self._variant.requested_outputs):
            error = "an output is missing"
        if error is not None:
            self.tally.error = self.tally.error or str(error)
        done()

    def closed(self, seconds: float, window: int, per_query: int) -> int:
        """Keep `window` queries of `per_query` samples under way; returns the samples that were sent."""
        room = threading.Semaphore(window)
        sent = 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.tally.error:
            self._wait(room)
            self._query(time.perf_counter_ns(), per_query, room.release)
            sent += per_query
        for _ in range(window):
            self._wait(room)
        return sent

    def paced(self, arrivals_us: Sequence[int]) -> int:
        """Send single samples at these times after the first; returns how many."""
        answered = threading.Semaphore(0)
        began = time.perf_counter_ns()
        sent = 0
        for arrival_us in arrivals_us:
            if self.tally.error:
                break
            due = began + arrival_us * 1000
            time.sleep(max(0, due - time.perf_counter_ns()) / 1e9)
            self._query(due, 1, answered.release)
            sent += 1
        for _ in range(sent):
            self._wait(answered)
        return sent

    def _wait(self, semaphore: threading.Semaphore) -> None:
        if not semaphore.acquire(timeout=_PATIENCE_S):
            raise InferenceError(f"no answer from {self._job.url} in {_PATIENCE_S:.0f} s")

    def _query(self, begin_ns: int, samples: int, done: Callable[[], object]) -> None:
        left = samples

        def on_sample() -> None:
            # Callbacks of one client come one after the other, on gRPC's thread.
            nonlocal left
            left -= 1
            if left == 0:
                now = time.perf_counter_ns()
                self.tally.latencies_ns.append(now - begin_ns)
                self.tally.last_ns = now
                done()

        for _ in range(samples):
            self.send(on_sample)


def measure(job: PlainJob) -> PlainOutcome:
    """Warm up, then ask as the scenario does.

    Raises:
        InferenceError: a request failed or was lost.
    """
    variant = manifest.load(Path(job.entry_dir)).variant
    rows = read_rows(Path(job.samples))
    window = job.in_flight if job.scenario == Scenario.OFFLINE else 1
    with InferenceServerClient(job.url) as client, TritonClient(job.url) as control:
        loop = _Loop(client, job, variant, rows)
        loop.closed(_WARM_UP_S, window, job.samples_per_query)
        loop.tally = _Tally()
        before = control.statistics(job.entry)
        began, cpu_began = time.perf_counter_ns(), time.process_time()
        if job.scenario == Scenario.SERVER:
            samples = loop.paced(np.sort(timeline.load(Path(job.arrivals)).issued_us).tolist())
        else:
            samples = loop.closed(job.seconds, window, job.samples_per_query)
        cpu_s = time.process_time() - cpu_began
        served = statistics.difference(before, control.statistics(job.entry))
    if loop.tally.error:
        raise InferenceError(f"tritonclient failed: {loop.tally.error}")
    p50, p90, p99 = np.percentile(loop.tally.latencies_ns, (50, 90, 99)) / 1e6
    seconds = (loop.tally.last_ns - began) / 1e9
    return PlainOutcome(samples, seconds, float(p50), float(p90), float(p99), cpu_s, served.mean_batch_size)


def main() -> int:
    """Carry out the job named on the command line."""
    job = loads(PlainJob, Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        outcome = dataclasses.asdict(measure(job))
    except Exception as error:  # noqa: BLE001 - the parent reports it
        outcome = {"error": f"{type(error).__name__}: {error}"}
    Path(job.outcome).write_text(json.dumps(outcome, indent=2), encoding="utf-8")
    return 1 if "error" in outcome else 0


if __name__ == "__main__":
    sys.exit(main())

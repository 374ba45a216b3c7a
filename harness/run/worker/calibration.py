"""Short measurements before a test, from which LoadGen's hints come: expected latency and throughput.

They go through the same SUT as the test, with a stopwatch in LoadGen's place. LoadGen needs them right:
a SingleStream hint over twice the truth runs it out of queries, and an Offline hint under the truth makes
the run too short. In Server it is where the search for the rate begins.
"""

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import InferenceError
from harness.run.mlperf import rate_search
from harness.run.mlperf.plan import PERCENTILE
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.sut import Sut

logger = logging.getLogger(__name__)

_WARM_UP_SECONDS = 0.5
_SECONDS = 2.0
_MIN_QUERIES = 5
_THROUGHPUT_QUERIES = 3
_THROUGHPUT_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0
"""Models that take seconds for an image are measured with fewer queries than the minimum."""
_TIMEOUT_S = 300.0
_LATENCY_MARGIN = 0.7
"""Hint = this share of a fast query: too low only costs memory, too high makes the run INVALID."""
_OFFLINE_MARGIN = 1.2
"""Over LoadGen's own 10 %: too high only makes the run longer, too low makes it INVALID."""
_SERVER_IN_FLIGHT = 16
_SERVER_SHARE = 0.6
"""Of the throughput in the closed loop: in the middle of the rates that keep usual bounds."""


class Stopwatch:
    """Stands where LoadGen does: notes when each sample was completed."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self.completed_ns: dict[int, int] = {}

    def complete(
        self, response_ids: Sequence[int], _address: int, _stride: int, _sizes: Sequence[int]
    ) -> None:
        """Note the time; has the signature of `sut.Complete`."""
        now = time.perf_counter_ns()
        with self._lock:
            self.completed_ns.update(dict.fromkeys(response_ids, now))
            self._lock.notify_all()

    def wait(self, count: int) -> None:
        """Block until `count` samples were completed since the last `clear`.

        Raises:
            InferenceError: they were not, in five minutes.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: len(self.completed_ns) >= count, _TIMEOUT_S):
                raise InferenceError(
                    f"only {len(self.completed_ns)} of {count} samples answered in 5 minutes"
                )

    def clear(self) -> None:
        """Forget all completions."""
        with self._lock:
            self.completed_ns.clear()


@dataclass(frozen=True)
class Hints:
    """What LoadGen is told to expect, and what it was derived from."""

    target_qps: float = 1.0
    expected_latency_ns: int = 1_000_000
    note: str = ""


class Calibrator:
    """Measures one SUT whose `complete` is a stopwatch's."""

    def __init__(self, sut: Sut, stopwatch: Stopwatch, indices: Sequence[int]) -> None:
        """`indices`: the loaded samples, which queries take in turn."""
        self._sut, self._stopwatch = sut, stopwatch
        self._indices = list(indices)

    def warm_up(self, samples: int) -> None:
        """Make queries of this size for half a second, at least two unless they are very slow.

        Raises:
            InferenceError: a request failed.
        """
        began = time.monotonic()
        count = 0
        while count < 2 or time.monotonic() < began + _WARM_UP_SECONDS:
            self.query(samples)
            count += 1
            if time.monotonic() > began + _PATIENCE_SECONDS / 2:
                break

    def query(self, samples: int, start: int = 0) -> int:
        """Latency in ns of one query of `samples` samples.

        Raises:
            InferenceError: a request failed.
        """
        self._stopwatch.clear()
        repeats = -(-(start + samples) // len(self._indices))
        indices = (self._indices * repeats)[start : start + samples]
        begin = time.perf_counter_ns()
        self._sut.issue(list(range(samples)), indices)
        self._stopwatch.wait(samples)
        self._check()
        return max(self._stopwatch.completed_ns.values()) - begin

    def latencies(self, samples: int) -> list[int]:
        """Sorted latencies in ns of queries in a row, for about two seconds."""
        results: list[int] = []
        began = time.monotonic()
        while len(results) < _MIN_QUERIES or time.monotonic() < began + _SECONDS:
            start = len(results) * samples % len(self._indices)
            results.append(self.query(samples, start))
            if time.monotonic() > began + _PATIENCE_SECONDS:
                break
        return sorted(results)

    def throughput(self, in_flight_samples: int) -> float:
        """Samples per second of long queries: the best of a few, since others may use this machine too."""
        samples = max(2 * in_flight_samples, _MIN_QUERIES)
        rates: list[float] = []
        began = time.monotonic()
        while len(rates) < _THROUGHPUT_QUERIES:
            if rates and time.monotonic() > began + _PATIENCE_SECONDS:
                break
            seconds = self.query(samples) / 1e9
            if seconds >= _THROUGHPUT_SECONDS / 2:
                rates.append(samples / seconds)
            else:
                samples = max(samples + 1, int(samples * min(8.0, 1.2 * _THROUGHPUT_SECONDS / seconds)))
        return max(rates)

    def tail_latency_ns(self, rate: float, seconds: float) -> int:
        """p99 in ns of single samples that arrive by chance at `rate` a second, as in Server."""
        chance = random.Random(0)
        count = max(int(rate * seconds), min(50, int(rate * _PATIENCE_SECONDS)), _MIN_QUERIES)
        self._stopwatch.clear()
        arrivals: list[int] = []
        due = time.perf_counter_ns()
        for number in range(count):
            due += int(chance.expovariate(rate) * 1e9)
            time.sleep(max(0, due - time.perf_counter_ns()) / 1e9)
            arrivals.append(due)
            self._sut.issue([number], [self._indices[number % len(self._indices)]])
        self._stopwatch.wait(count)
        self._check()
        latencies = sorted(self._stopwatch.completed_ns[number] - arrivals[number] for number in range(count))
        return latencies[int(count * PERCENTILE[Scenario.SERVER])]

    def _check(self) -> None:
        if self._sut.failures.requests:
            raise InferenceError(f"the model fails before the test: {self._sut.failures.first}")


def calibrate(
    calibrator: Calibrator,
    scenario: Scenario,
    *,
    samples_per_query: int,
    in_flight_samples: int,
    bound_ns: int,
) -> Hints:
    """Measure what this scenario's hint needs; takes some 2 s, for Server 5.

    Raises:
        InferenceError: a request failed.
    """
    if scenario == Scenario.OFFLINE:
        rate = calibrator.throughput(in_flight_samples)
        note = f"calibration: {rate:.1f} samples/s in flight of {in_flight_samples}"
        return Hints(target_qps=rate * _OFFLINE_MARGIN, note=note)
    if scenario == Scenario.SERVER:
        return _server_rate(calibrator, bound_ns)
    latencies = calibrator.latencies(samples_per_query)
    fast = latencies[len(latencies) // 10]
    note = f"calibration: a query takes {fast / 1e6:.2f} ms (10th percentile of {len(latencies)})"
    return Hints(expected_latency_ns=int(fast * _LATENCY_MARGIN), note=note)


def _server_rate(calibrator: Calibrator, bound_ns: int) -> Hints:
    """Where the search for the highest rate that keeps the bound should begin."""
    alone = calibrator.latencies(1)
    median = alone[len(alone) // 2]
    capacity, note = 1e9 / median, f"calibration: one sample alone takes {median / 1e6:.2f} ms"
    if median > bound_ns:
        logger.warning(
            "one sample alone takes %.2f ms here and the bound is %.2f ms: hardly any rate will keep it; "
            "relax it with --max-latency SECONDS (not an official run)",
            median / 1e6,
            bound_ns / 1e6,
        )
    else:
        capacity = max(capacity, calibrator.throughput(_SERVER_IN_FLIGHT))
        note = f"calibration: {capacity:.1f} samples/s in flight of {_SERVER_IN_FLIGHT}"
    return Hints(target_qps=rate_search.nearest(capacity * _SERVER_SHARE), note=note)

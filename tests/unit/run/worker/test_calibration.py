"""What LoadGen is told to expect, by how long made-up queries took; the clock is made up too."""

from collections.abc import Callable, Sequence

import pytest

from harness.errors import InferenceError
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import calibration
from harness.run.worker.calibration import Calibrator, Hints, Stopwatch, calibrate
from harness.run.worker.job import Failures

MS = 1_000_000


class Clock:
    """Stands for the module `time`: only what is asked takes time."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class FakeSut:
    """Answers a query before `issue` returns, after as many ns as `takes_ns(query, samples)` says."""

    def __init__(self, clock: Clock, stopwatch: Stopwatch, takes_ns: Callable[[int, int], int]) -> None:
        self._clock, self._stopwatch, self._takes_ns = clock, stopwatch, takes_ns
        self.failures = Failures()
        self.queries: list[list[int]] = []

    def issue(self, response_ids: list[int], indices: list[int]) -> None:
        self._clock.now_ns += self._takes_ns(len(self.queries), len(indices))
        self.queries.append(indices)
        self._stopwatch.complete(response_ids, 0, 0, [0] * len(indices))


Ready = tuple[Calibrator, FakeSut]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ready]:
    """A calibrator with samples 20 to 29 loaded."""
    clock = Clock()
    monkeypatch.setattr(calibration, "time", clock)

    def machine(takes_ns: Callable[[int, int], int], indices: Sequence[int] = range(20, 30)) -> Ready:
        stopwatch = Stopwatch()
        sut = FakeSut(clock, stopwatch, takes_ns)
        return Calibrator(sut, stopwatch, indices), sut  # type: ignore[arg-type]

    return machine


def ten_ms_each(_query: int, samples: int) -> int:
    return 10 * MS * samples


def hints(calibrator: Calibrator, scenario: Scenario, samples_per_query: int = 1) -> Hints:
    return calibrate(
        calibrator,
        scenario,
        samples_per_query=samples_per_query,
        in_flight_samples=32,
        bound_ns=100 * MS,
    )


def test_offline_is_told_a_fifth_more_than_was_measured(machine: Callable[..., Ready]) -> None:
    calibrator, _ = machine(ten_ms_each)
    found = hints(calibrator, Scenario.OFFLINE)
    assert found.target_qps == pytest.approx(120.0)
    assert found.note == "calibration: 100.0 samples/s in flight of 32"


def test_single_stream_is_told_less_than_a_fast_query_took(machine: Callable[..., Ready]) -> None:
    calibrator, sut = machine(ten_ms_each)
    found = hints(calibrator, Scenario.SINGLE_STREAM)
    assert found.expected_latency_ns == 7_000_000
    assert found.note == "calibration: a query takes 10.00 ms (10th percentile of 200)"
    # Two seconds of them, of all loaded samples in turn.
    assert sut.queries == [[sample] for sample in range(20, 30)] * 20


def test_a_few_lucky_queries_are_not_what_single_stream_is_told(machine: Callable[..., Ready]) -> None:
    calibrator, _ = machine(lambda query, _: 2 * MS if query % 20 == 0 else (10 + 40 * (query % 2)) * MS)
    assert hints(calibrator, Scenario.SINGLE_STREAM).expected_latency_ns == 7_000_000


def test_multi_stream_is_told_of_a_query_of_eight(machine: Callable[..., Ready]) -> None:
    calibrator, sut = machine(ten_ms_each)
    assert hints(calibrator, Scenario.MULTI_STREAM, samples_per_query=8).expected_latency_ns == 56_000_000
    # One query goes on where the last one ended, round the end of the loaded samples too.
    assert sut.queries[:2] == [[20, 21, 22, 23, 24, 25, 26, 27], [28, 29, 20, 21, 22, 23, 24, 25]]
    assert sum(map(len, sut.queries)) == 25 * 8


def test_a_model_that_takes_seconds_is_asked_a_few_times_only(machine: Callable[..., Ready]) -> None:
    calibrator, sut = machine(lambda *_: 3000 * MS)
    # After 10 s there is no patience left, though five queries are the least.
    assert calibrator.latencies(1) == [3000 * MS] * 4
    assert len(sut.queries) == 4


def test_throughput_is_the_best_of_three_queries(machine: Callable[..., Ready]) -> None:
    calibrator, sut = machine(lambda query, samples: (15, 10, 20)[query] * MS * samples)
    assert calibrator.throughput(32) == pytest.approx(100.0)
    assert list(map(len, sut.queries)) == [64, 64, 64]


def test_throughput_is_taken_from_queries_that_are_long_enough_to_be_timed(
    machine: Callable[..., Ready],
) -> None:
    calibrator, sut = machine(lambda _, samples: 50 * MS + samples * 10_000)
    # Half a second at least, of which the start takes 50 ms: 45,000 samples of 10 us.
    rate = calibrator.throughput(1)
    *short, third, second, first = map(len, sut.queries)
    assert max(short) < 45_000 <= min(first, second, third)
    assert 90_000 <= rate < 100_000


def test_throughput_of_a_model_that_takes_seconds_is_that_of_one_query(
    machine: Callable[..., Ready],
) -> None:
    calibrator, sut = machine(lambda _, samples: 4000 * MS * samples)
    assert calibrator.throughput(1) == pytest.approx(0.25)
    assert list(map(len, sut.queries)) == [5]


@pytest.mark.parametrize(
    ("query_ms", "queries"),
    [(10, 50), (200, 3), (300, 2), (4000, 2), (6000, 1)],
)
def test_a_warm_up_takes_half_a_second_and_two_queries_unless_they_are_very_slow(
    machine: Callable[..., Ready], query_ms: int, queries: int
) -> None:
    calibrator, sut = machine(lambda *_: query_ms * MS)
    calibrator.warm_up(8)
    assert list(map(len, sut.queries)) == [8] * queries


def test_a_rate_that_the_machine_can_keep_up_with_has_a_short_tail(machine: Callable[..., Ready]) -> None:
    calibrator, sut = machine(ten_ms_each)
    assert 10 * MS <= calibrator.tail_latency_ns(10.0, 20.0) < 40 * MS
    assert len(sut.queries) == 200


def test_a_rate_beyond_the_machines_shows_in_the_tail(machine: Callable[..., Ready]) -> None:
    calibrator, _ = machine(ten_ms_each)
    # Twice as many as it can answer: those of 4 s take it 8 s.
    assert 3000 * MS < calibrator.tail_latency_ns(200.0, 4.0) < 5000 * MS


def test_a_request_that_fails_ends_the_calibration(machine: Callable[..., Ready]) -> None:
    calibrator, sut = machine(ten_ms_each)
    sut.failures = Failures(1, 1, "RequestFailed: out of luck")
    for scenario in Scenario:
        with pytest.raises(InferenceError, match="the model fails before the test: RequestFailed: out of l"):
            hints(calibrator, scenario)


class Capacity:
    """Stands for a calibrator: 8 ms for one sample alone, and a throughput of many."""

    def __init__(self, throughput: float) -> None:
        self._throughput = throughput

    def latencies(self, samples: int) -> list[int]:
        return [8 * MS * samples] * 5

    def throughput(self, in_flight: int) -> float:
        assert in_flight == 16
        return self._throughput


def rate(throughput: float, bound_ms: int = 50) -> Hints:
    return calibrate(
        Capacity(throughput),  # type: ignore[arg-type]
        Scenario.SERVER,
        samples_per_query=1,
        in_flight_samples=1,
        bound_ns=bound_ms * MS,
    )


# 0.6 of it: of 200 samples a second, or of the 125 that one after the other would be.
@pytest.mark.parametrize(("throughput", "expected"), [(200.0, 120.0), (100.0, 75.0)])
def test_the_search_for_servers_rate_begins_well_below_the_throughput(
    throughput: float, expected: float
) -> None:
    assert rate(throughput).target_qps == pytest.approx(expected, rel=0.011)


def test_where_one_sample_alone_breaks_the_bound_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    found = rate(1e9, bound_ms=7)
    assert found.target_qps == pytest.approx(75.0, rel=0.011)
    assert found.note == "calibration: one sample alone takes 8.00 ms"
    assert "one sample alone takes 8.00 ms here and the bound is 7.00 ms" in caplog.text

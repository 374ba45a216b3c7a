"""Which rate Server is offered, by how long queries took at a few."""

import pytest

from harness.run.mlperf.rounds import Scenario
from harness.run.worker.calibration import Hints, calibrate

MS = 1_000_000


class Machine:
    """Stands for a calibrator: 100 samples per second, 8 ms for one alone, and a p99 by the rate."""

    def __init__(self, tails_ms: dict[int, int]) -> None:
        self.tails_ms = tails_ms

    def latencies(self, samples: int) -> list[int]:
        return [8 * MS * samples] * 5

    def throughput(self, _in_flight: int) -> float:
        return 100.0

    def tail_latency_ns(self, rate: float, _seconds: float) -> int:
        # 125 a second: one sample after the other.
        return MS * next(tail for share, tail in self.tails_ms.items() if rate >= 1.25 * share - 0.01)


def rate(tails_ms: dict[int, int], bound_ms: int = 50) -> Hints:
    machine = Machine(tails_ms)
    return calibrate(
        machine,  # type: ignore[arg-type]
        Scenario.SERVER,
        samples_per_query=1,
        in_flight_samples=1,
        bound_ns=bound_ms * MS,
    )


@pytest.mark.parametrize(
    ("tails_ms", "expected"),
    [
        ({70: 90, 55: 24, 0: 20}, 0.55 * 125 * 0.8),
        ({70: 90, 55: 51, 40: 30, 30: 28, 0: 26}, 0.4 * 125 * 0.8),
    ],
    ids=["the highest that leaves half of the bound", "else the highest that keeps it"],
)
def test_server_is_offered_a_little_less_than_a_rate_that_was_tried(
    tails_ms: dict[int, int], expected: float
) -> None:
    assert rate(tails_ms).target_qps == pytest.approx(expected)


def test_where_no_rate_keeps_the_bound_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert rate({0: 51}).target_qps == pytest.approx(62.5)
    assert "no rate was found that keeps it" in caplog.text

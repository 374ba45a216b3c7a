"""LoadGen's figures, declared once: the key of each in its detail log, by scenario, and the unit."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.run.mlperf.logs import DetailLog
from harness.run.mlperf.rounds import Scenario


@dataclass(frozen=True)
class Figure:
    """One figure of the detail log."""

    key: str
    name: str
    unit: str
    divisor: float = 1.0
    """Of what is logged, to get the unit."""

    def of(self, log: DetailLog) -> float | None:
        """Its value; None where this test has none."""
        value = log.number(self.key)
        return value / self.divisor if value is not None else None


COMPLETED = Figure("result_completed_samples_per_sec", "completed samples", "samples/s")
THROUGHPUT = Figure("result_samples_per_second", "throughput", "samples/s")

METRIC: Mapping[Scenario, Figure] = {
    Scenario.SINGLE_STREAM: Figure("early_stopping_latency_ss", "90th percentile latency", "ms", 1e6),
    Scenario.MULTI_STREAM: Figure("early_stopping_latency_ms", "99th percentile query latency", "ms", 1e6),
    Scenario.SERVER: COMPLETED,
    Scenario.OFFLINE: THROUGHPUT,
}
"""What MLPerf's submission checker ranks by."""
_RATE: Mapping[Scenario, Figure] = {
    Scenario.SINGLE_STREAM: Figure("result_qps_with_loadgen_overhead", "queries", "queries/s"),
    Scenario.SERVER: COMPLETED,
    Scenario.OFFLINE: THROUGHPUT,
}

PERCENTILES = (50, 90, 95, 97, 99, 99.9)
"""Those of latency that LoadGen logs, of queries."""


def percentile_ms(log: DetailLog, percentile: float) -> float | None:
    """A percentile of the latency of queries."""
    value = log.latency_ns(f"{percentile:.2f}_percentile")
    return value / 1e6 if value is not None else None


def counted(count: float, one: str, several: str = "") -> str:
    """`1 query`, `24 queries`; `several` is `one` with an s unless told."""
    return f"{count:,.0f} {one if count == 1 else several or f'{one}s'}"


def so_many(count: float, one: str, several: str) -> str:
    """`1 query is`, `24 queries are`."""
    return f"{counted(count, one, several)} {'is' if count == 1 else 'are'}"


def rate(log: DetailLog, scenario: Scenario) -> float | None:
    """Samples per second; of MultiStream, for which LoadGen logs none, queries."""
    if scenario in _RATE:
        return _RATE[scenario].of(log)
    mean = log.latency_ns("mean")
    return 1e9 / mean if mean else None

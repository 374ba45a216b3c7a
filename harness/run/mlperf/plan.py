"""What LoadGen is told about one test; plain data."""

from dataclasses import dataclass
from enum import StrEnum

from harness.run.mlperf.rounds import Scenario


class Mode(StrEnum):
    """LoadGen's test modes that this harness runs."""

    PERFORMANCE = "PerformanceOnly"
    ACCURACY = "AccuracyOnly"
    FIND_PEAK = "FindPeakPerformance"


# LoadGen's own minimum latency percentiles (mlperf.conf, every round since v0.5 but v0.5's 97 % MultiStream).
PERCENTILE = {Scenario.SINGLE_STREAM: 0.90, Scenario.MULTI_STREAM: 0.99, Scenario.SERVER: 0.99}


@dataclass(frozen=True)
class Plan:
    """Everything that LoadGen is told about one test."""

    scenario: Scenario
    mode: Mode
    min_duration_ms: int
    min_query_count: int
    performance_sample_count: int
    samples_per_query: int
    server_target_latency_ns: int
    qsl_seed: int
    sample_index_seed: int
    schedule_seed: int
    target_qps: float = 1.0
    """Server: the offered rate. Offline: the expected throughput, which sizes its one query."""
    expected_latency_ns: int = 1_000_000
    """SingleStream and MultiStream: of one query, which sizes the list of queries made beforehand."""

"""A plan of a LoadGen test, where its seeds do not matter."""

from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario


def any_plan(scenario: Scenario = Scenario.SINGLE_STREAM, **settings: object) -> Plan:
    """A performance test of a hundred queries in a tenth of a second, but for the settings given."""
    chosen = {
        "mode": Mode.PERFORMANCE,
        "min_duration_ms": 100,
        "min_query_count": 100,
        "performance_sample_count": 64,
        "samples_per_query": 1,
        "server_target_latency_ns": 10_000_000,
        "qsl_seed": 1,
        "sample_index_seed": 2,
        "schedule_seed": 3,
        **settings,
    }
    return Plan(scenario=scenario, **chosen)

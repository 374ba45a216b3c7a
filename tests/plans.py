"""A plan of a LoadGen test, where its seeds do not matter; a job, where hardly anything of it does."""

from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.job import Job
from harness.triton.address import Address


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


def any_job(plan: Plan, **settings: object) -> Job:
    """A test by one process of a server that does not exist, but for the settings given."""
    chosen = {
        "servers": (Address("127.0.0.1:1"),),
        "processes": 1,
        "entry": "an_entry",
        "entry_dir": "/models/an_entry",
        "graph_sha256": "0",
        "samples": "/cache/samples.npy",
        "log_dir": "/results",
        "outcome": "/results/outcome.json",
        "transport": "auto",
        "segment": "segment",
        "client_batch": 1,
        "in_flight": 2,
        "timeout_s": 60.0,
        "has_hint": True,
        **settings,
    }
    return Job(plan=plan, **chosen)

"""What one test is made of: the round's rules with what the user asked instead, and where each comes from."""

import dataclasses
from collections.abc import Sequence

from harness.machine.environment import cpu_count
from harness.models.spec import Variant
from harness.run.config.run_config import RunConfig
from harness.run.config.tuning import Tuning, tune
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import QUICK_MIN_QUERIES, Rules, Scenario
from harness.run.mlperf.user_conf import (
    MIN_DURATION,
    MIN_QUERY_COUNT,
    PERFORMANCE_SAMPLE_COUNT,
    SAMPLES_PER_QUERY,
    TARGET_LATENCY,
    TARGET_QPS,
)
from harness.triton.client import is_on_this_host

USER_CONF = "--user_conf"
CALIBRATED = "calibrated"


@dataclasses.dataclass(frozen=True)
class Sourced:
    """A number, and where it comes from."""

    value: float
    origin: str


def duration_ms(config: RunConfig, rule: Rules, scenario: Scenario) -> Sourced:
    """The shortest duration of a test; 0 where a number of queries ends it."""
    if config.time_s is not None:
        return Sourced(max(1, int(config.time_s * 1000)), config.provenance["time"])
    if asked := config.user_conf.get(scenario, MIN_DURATION):
        return Sourced(asked, USER_CONF)
    if config.count is not None:
        return Sourced(0, config.provenance["count"])
    return Sourced(rule.min_duration_ms, f"round {rule.round}")


def queries(config: RunConfig, rule: Rules, scenario: Scenario) -> Sourced:
    """The fewest queries of a test; in Offline the fewest samples of its one query."""
    if asked := config.queries(scenario):
        names = {Scenario.SINGLE_STREAM: "queries_single", Scenario.OFFLINE: "queries_offline"}
        return Sourced(asked, config.provenance[names.get(scenario, "queries_multi")])
    if listed := config.user_conf.get(scenario, MIN_QUERY_COUNT):
        return Sourced(listed, USER_CONF)
    if config.time_s is not None:
        return Sourced(QUICK_MIN_QUERIES[scenario], "fewest that LoadGen can judge")
    if config.count is not None:
        # A quick run asks every sample about once; else --count is the reference's: so many queries.
        is_quick = config.is_quick
        count = -(-config.count // samples_per_query(config, rule, scenario).value)
        return Sourced(count if is_quick else config.count, config.provenance["count"])
    return Sourced(rule.min_query_count, f"round {rule.round}")


def samples_per_query(config: RunConfig, rule: Rules, scenario: Scenario) -> Sourced:
    """Of MultiStream; 1 elsewhere."""
    if scenario == Scenario.MULTI_STREAM:
        if config.samples_per_query:
            return Sourced(config.samples_per_query, config.provenance["samples_per_query"])
        if listed := config.user_conf.get(scenario, SAMPLES_PER_QUERY):
            return Sourced(listed, USER_CONF)
    return Sourced(rule.samples_per_query, f"round {rule.round}")


def performance_samples(config: RunConfig, rule: Rules, scenario: Scenario) -> Sourced:
    """Samples that performance runs draw from, of a data set that is large enough."""
    if config.performance_sample_count:
        return Sourced(config.performance_sample_count, config.provenance["performance_sample_count"])
    if listed := config.user_conf.get(scenario, PERFORMANCE_SAMPLE_COUNT):
        return Sourced(listed, USER_CONF)
    return Sourced(rule.performance_sample_count, "model")


def qps(config: RunConfig, scenario: Scenario) -> Sourced | None:
    """Server's and Offline's rate; None where it is calibrated."""
    if scenario not in (Scenario.SERVER, Scenario.OFFLINE):
        return None
    if config.qps is not None:
        return Sourced(config.qps, config.provenance["qps"])
    listed = config.user_conf.get(scenario, TARGET_QPS)
    return Sourced(listed, USER_CONF) if listed else None


def bounds_s(config: RunConfig, scenario: Scenario) -> Sequence[float | None]:
    """Server's latency bounds, a test each; None is the round's own, or a scenario's that has none."""
    if scenario != Scenario.SERVER:
        return (None,)
    listed = config.user_conf.get(scenario, TARGET_LATENCY)
    return config.max_latency_s or ((listed / 1000,) if listed else (None,))


def bound_ns(config: RunConfig, rule: Rules, bound_s: float | None) -> Sourced:
    """Server's latency bound in one test."""
    if bound_s is None:
        return Sourced(rule.server_target_latency_ns, f"round {rule.round}")
    return Sourced(
        int(bound_s * 1e9), config.provenance["max_latency"] if config.max_latency_s else USER_CONF
    )


def make_plan(
    config: RunConfig,
    sample_count: int | None,
    scenario: Scenario,
    mode: Mode,
    rule: Rules,
    bound_s: float | None,
) -> Plan:
    """The round's rules, changed where the user asked for that.

    Args:
        config: the request.
        sample_count: of the data set; None where it is not known.
        scenario: how the model is queried.
        mode: what is tested.
        rule: what the round asks for.
        bound_s: Server's latency bound, None for the round's.
    """
    samples = int(performance_samples(config, rule, scenario).value)
    rate = qps(config, scenario)
    return Plan(
        scenario=scenario,
        mode=mode,
        min_duration_ms=int(duration_ms(config, rule, scenario).value),
        min_query_count=int(queries(config, rule, scenario).value),
        performance_sample_count=samples if sample_count is None else min(samples, sample_count),
        samples_per_query=int(samples_per_query(config, rule, scenario).value),
        server_target_latency_ns=int(bound_ns(config, rule, bound_s).value),
        qsl_seed=rule.qsl_seed,
        sample_index_seed=rule.sample_index_seed,
        schedule_seed=rule.schedule_seed,
        target_qps=rate.value if rate else 1.0,
    )


def tuning_of(
    config: RunConfig, variant: Variant, urls: Sequence[str], rule: Rules, scenario: Scenario
) -> Tuning:
    """The settings of server and client for one scenario.

    Args:
        config: the request.
        variant: the model as it is served.
        urls: of the servers; none for one of our own.
        rule: what the round asks for.
        scenario: how the model is queried.

    Raises:
        ConfigError: this machine's table of measured settings is damaged.
    """
    local = sum(map(is_on_this_host, urls))
    # Servers on this machine share its cores.
    own_cpus = max(1, cpu_count() // max(1, local)) if local == len(urls) and config.device != "gpu" else 0
    tuning = tune(
        config.spec,
        variant,
        scenario,
        threads=config.threads or own_cpus,
        samples_per_query=int(samples_per_query(config, rule, scenario).value),
        max_batchsize=config.max_batchsize,
        device=config.device,
    )
    server = dataclasses.replace(tuning.server, precision=config.precision)
    return dataclasses.replace(tuning, server=server, in_flight=config.in_flight or tuning.in_flight)

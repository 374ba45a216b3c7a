import dataclasses

import mlperf_loadgen
import pytest

from harness.models import MODELS
from harness.run.mlperf import loadgen
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import ROUNDS, Scenario, rules


def plan(model: str, scenario: Scenario, round_name: str = "v6.1") -> Plan:
    fixed = dataclasses.asdict(rules(round_name, MODELS[model], scenario))
    names = {field.name for field in dataclasses.fields(Plan)}
    return Plan(scenario=scenario, mode=Mode.PERFORMANCE, **{k: v for k, v in fixed.items() if k in names})


@pytest.mark.parametrize("scenario", Scenario)
def test_the_rules_of_the_latest_round_are_those_embedded_in_loadgen(scenario: Scenario) -> None:
    embedded = mlperf_loadgen.TestSettings()
    assert embedded.FromConfig("", "resnet50", scenario.value, 0) == 0
    ours = loadgen.settings(plan("resnet50", scenario))
    names = [
        "min_duration_ms",
        "min_query_count",
        "qsl_rng_seed",
        "sample_index_rng_seed",
        "schedule_rng_seed",
        "performance_sample_count_override",
        "server_target_latency_ns",
        "single_stream_target_latency_percentile",
        "multi_stream_target_latency_percentile",
        "server_target_latency_percentile",
        "max_duration_ms",
        "max_query_count",
        "sample_concatenate_permutation",
        "server_coalesce_queries",
        "performance_issue_unique",
        "performance_issue_same",
    ]
    assert {name: getattr(ours, name) for name in names} == {name: getattr(embedded, name) for name in names}


def test_multi_stream_queries_have_the_embedded_number_of_samples() -> None:
    embedded = mlperf_loadgen.TestSettings()
    embedded.FromConfig("", "resnet50", "MultiStream", 0)
    ours = loadgen.settings(plan("resnet50", Scenario.MULTI_STREAM))
    assert ours.multi_stream_samples_per_query == embedded.multi_stream_samples_per_query == 8


def test_a_model_that_loadgen_forgot_keeps_the_limits_of_its_own_round() -> None:
    # mlperf.conf of v0.5: mobilenet has 1024 samples and a bound of 10 ms.
    rule = rules("v0.5", MODELS["mobilenet"], Scenario.SERVER)
    assert (rule.performance_sample_count, rule.server_target_latency_ns) == (1024, 10_000_000)
    assert (rule.min_duration_ms, rule.min_query_count) == (60_000, 270_336)
    assert rule.model_in_round


def test_a_model_outside_a_round_is_known_to_be_outside() -> None:
    assert not rules("v6.1", MODELS["mobilenet"], Scenario.OFFLINE).model_in_round
    assert rules("v6.1", MODELS["resnet50"], Scenario.OFFLINE).model_in_round


def test_no_two_rounds_share_a_seed() -> None:
    seeds = [s for r in ROUNDS.values() for s in (r.qsl_seed, r.sample_index_seed, r.schedule_seed)]
    assert len(set(seeds)) == 3 * len(ROUNDS)

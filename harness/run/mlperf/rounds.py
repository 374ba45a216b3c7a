"""MLPerf's rules by round: seeds, durations, counts and limits, also for models that LoadGen 6 forgot.

Source: `mlperf.conf` of mlcommons/inference at the tag of each round (v5.0 on: the file embedded in LoadGen).
The old fixed-interval MultiStream of v0.5 to v1.0 does not exist in LoadGen 6; those rounds get today's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from harness.errors import ConfigError
from harness.models.spec import ModelSpec


class Scenario(StrEnum):
    """LoadGen's scenarios, spelled as MLPerf spells them."""

    SINGLE_STREAM = "SingleStream"
    MULTI_STREAM = "MultiStream"
    SERVER = "Server"
    OFFLINE = "Offline"


@dataclass(frozen=True)
class Round:
    """What one round fixes for every model."""

    name: str
    min_duration_s: int
    qsl_seed: int
    sample_index_seed: int
    schedule_seed: int
    min_queries: Mapping[Scenario, int]
    """Samples for Offline (its one query holds them all), queries otherwise."""


_FIXED_COUNTS = {
    Scenario.SINGLE_STREAM: 1024,
    Scenario.MULTI_STREAM: 270_336,
    Scenario.SERVER: 270_336,
    Scenario.OFFLINE: 24_576,
}
_V05_COUNTS = {**_FIXED_COUNTS, Scenario.OFFLINE: 1}
# From v2.1 on LoadGen's early-stopping criterion decides; these are its embedded minima.
_EARLY_STOPPING = {
    Scenario.SINGLE_STREAM: 100,
    Scenario.MULTI_STREAM: 662,
    Scenario.SERVER: 100,
    Scenario.OFFLINE: 24_576,
}

_TABLE = (
    # round, seconds, seeds of: qsl, sample index, schedule; minimum queries
    ("v0.5", 60, 3133965575612453542, 665484352860916858, 3622009729038561421, _V05_COUNTS),
    ("v0.7", 60, 12786827339337101903, 12640797754436136668, 3135815929913719677, _FIXED_COUNTS),
    ("v1.0", 600, 7322528924094909334, 1570999273408051088, 3507442325620259414, _FIXED_COUNTS),
    ("v1.1", 600, 1624344308455410291, 517984244576520566, 10051496985653635065, _FIXED_COUNTS),
    ("v2.0", 600, 6655344265603136530, 15863379492028895792, 12662793979680847247, _FIXED_COUNTS),
    ("v2.1", 600, 14284205019438841327, 4163916728725999944, 299063814864929621, _FIXED_COUNTS),
    ("v5.0", 600, 6023615788873153749, 15036839855038426416, 9933818062894767841, _EARLY_STOPPING),
    ("v5.1", 600, 1780908523862526354, 14771362308971278857, 18209322760996052031, _EARLY_STOPPING),
    ("v6.0", 600, 2465351861681999779, 14276810075590677512, 3936089224930324775, _EARLY_STOPPING),
    ("v6.1", 600, 2085463073848966840, 2747215439041700203, 16159082839903944936, _EARLY_STOPPING),
)
ROUNDS: Mapping[str, Round] = MappingProxyType({row[0]: Round(*row) for row in _TABLE})
LATEST_ROUND = "v6.1"

EARLY_STOPPING_MIN_QUERIES: Mapping[Scenario, int] = MappingProxyType(
    {Scenario.SINGLE_STREAM: 64, Scenario.MULTI_STREAM: 662, Scenario.SERVER: 459, Scenario.OFFLINE: 1}
)
"""Fewest queries with which LoadGen's early stopping (99 % confidence, zero tolerance) can be met:
one query over the percentile for the two streams, none over the bound for Server."""

QUICK_MIN_QUERIES: Mapping[Scenario, int] = MappingProxyType(
    {**EARLY_STOPPING_MIN_QUERIES, Scenario.SERVER: 838}
)
"""Fewest queries of a shortened run: as above, but two Server queries may be over the bound."""


_OLD_MULTI_STREAM = ("v0.5", "v0.7", "v1.0", "v1.1")
"""Rounds with a MultiStream of fixed intervals, which LoadGen 6 no longer has; v1.1 had none."""


@dataclass(frozen=True)
class Rules:
    """What one round fixes for one model in one scenario."""

    round: str
    model_in_round: bool
    scenario_in_round: bool
    """Whether today's LoadGen runs the scenario as that round did."""
    min_duration_ms: int
    min_query_count: int
    performance_sample_count: int
    samples_per_query: int
    """MultiStream only; 1 elsewhere."""
    server_target_latency_ns: int
    qsl_seed: int
    sample_index_seed: int
    schedule_seed: int


def get_round(name: str) -> Round:
    """Look a round up.

    Raises:
        ConfigError: no such round; names those that exist.
    """
    if name not in ROUNDS:
        raise ConfigError(f"unknown round {name!r}; rounds: {', '.join(ROUNDS)}")
    return ROUNDS[name]


def rules(round_name: str, spec: ModelSpec, scenario: Scenario) -> Rules:
    """Combine a round's general rules with the model's own limits.

    Raises:
        ConfigError: no such round.
    """
    chosen = get_round(round_name)
    is_multi_stream = scenario == Scenario.MULTI_STREAM
    return Rules(
        round=chosen.name,
        model_in_round=chosen.name in spec.rounds,
        scenario_in_round=not (is_multi_stream and chosen.name in _OLD_MULTI_STREAM),
        min_duration_ms=chosen.min_duration_s * 1000,
        min_query_count=chosen.min_queries[scenario],
        performance_sample_count=spec.performance_sample_count,
        samples_per_query=spec.multi_stream_samples_per_query if is_multi_stream else 1,
        server_target_latency_ns=spec.server_target_latency_ms * 1_000_000,
        qsl_seed=chosen.qsl_seed,
        sample_index_seed=chosen.sample_index_seed,
        schedule_seed=chosen.schedule_seed,
    )

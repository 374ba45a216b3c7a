"""One model on one platform: its limit, then every scenario on all paths in turns."""

import dataclasses
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.figures import (
    MEMORY_MB,
    OF_PLAIN,
    OFFLINE_OF_BARE,
    SERVER_OF_OFFLINE,
    SERVER_P99_MS,
    SINGLE_STREAM_OVER_BARE_MS,
    Row,
    Target,
    Unit,
)
from harness.bench.limit.search import Limit
from harness.bench.options import Options
from harness.bench.session import Ours, Plain, Session
from harness.machine.environment import cpu_count
from harness.run.config.tuning import Tuning
from harness.run.mlperf.rounds import Scenario, rules
from harness.run.preparation import Prepared
from harness.run.results import bottleneck
from harness.run.results.bottleneck import Bottleneck, Evidence
from harness.triton.client import TritonClient

logger = logging.getLogger(__name__)

_SERVER_LOAD = 0.5
"""Server: offered queries, as a share of those that the bare framework answers one after the other."""
_LOOK, _MAX_LOOK_S = 0.25, 1.5
"""For how long the bare framework's setups are looked at, as a share of a measurement, and at most."""
_LONG_TAIL = 0.01
"""Offline: a part of the run that no ratio can be off by."""


@dataclass
class Comparison:
    """What was measured of one entry."""

    title: str
    rows: list[Row] = field(default_factory=list)
    bottlenecks: dict[str, Bottleneck] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the paths did."""
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Everything of every round, for bench.json."""


@dataclass(frozen=True)
class Round:
    """One turn of all paths; None where the bare framework cannot do this."""

    ours: Ours
    plain: Plain
    bare: float | None


def compare(prepared: Prepared, client: TritonClient, options: Options, folder: Path) -> Comparison:
    """Measure one model.

    Args:
        prepared: its entry, which the server's repository has, and its samples.
        client: of the server.
        options: rounds and times.
        folder: for logs.

    Raises:
        HarnessError: a path failed.
    """
    config, facts = prepared.config, prepared.manifest
    result = Comparison(f"{config.model} on {config.platform}, {facts.weights} weights")
    session = Session([client], prepared, folder)
    with Limit(
        prepared.entry_dir,
        prepared.samples,
        facts.variant,
        cpus=cpu_count(),
        look_s=min(_LOOK * options.seconds, _MAX_LOOK_S),
        is_quick=options.is_quick,
    ) as limit:
        best = limit.best
        result.notes.append(
            f"bare: the framework called directly; Offline: {best.throughput}, batches of {best.batch} (the "
            f"best of all that was tried); else: {best.latency}, one query after the other"
        )
        try:
            for scenario in config.request.scenarios:
                _compare_scenario(result, prepared, session, limit, scenario, options)
            if {Scenario.SERVER, Scenario.OFFLINE} <= set(config.request.scenarios):
                _compare_loaded(result, prepared, session, options)
        finally:
            session.close()
    _add_targets(result, prepared)
    return result


def _compare_scenario(
    result: Comparison,
    prepared: Prepared,
    session: Session,
    limit: Limit,
    scenario: Scenario,
    options: Options,
) -> None:
    """Load the entry as the scenario wants it, and take the paths in turns."""
    config = prepared.config
    tuning = session.tuning(scenario)
    session.load(tuning)
    samples_per_query = rules(config.changes.round, config.spec, scenario).samples_per_query
    rate = {
        Scenario.SERVER: _SERVER_LOAD * 1e3 / limit.best.latency_ms,
        Scenario.OFFLINE: limit.best.samples_per_s,
    }.get(scenario)
    rounds = []
    for number in range(options.rounds):
        # What is loaded but not asked takes no CPU from the bare framework.
        bare = _bare(limit, scenario, samples_per_query, options.seconds)
        ours = session.ours(scenario, tuning, seconds=options.seconds, rate=rate)
        plain = session.plain(scenario, tuning, seconds=options.seconds, ours=ours)
        rounds.append(Round(ours, plain, bare))
        logger.info(
            "%s %s, round %d of %d: %s",
            *(prepared.manifest.entry, scenario, number + 1, options.rounds),
            _summary(scenario, rounds[-1]),
        )
    result.rows += _rows(scenario, rounds)
    result.notes.append(_note(scenario, tuning, samples_per_query, rate or 0.0))
    result.runs[scenario.value] = [dataclasses.asdict(turn) for turn in rounds]
    middle = sorted(rounds, key=lambda turn: figure(scenario, turn.ours))[len(rounds) // 2]
    if middle.ours.evidence:
        result.bottlenecks[scenario.value] = bottleneck.find(middle.ours.evidence)
        if scenario == Scenario.OFFLINE:
            result.notes += _tail_note(middle.ours.evidence, options.seconds)


def _compare_loaded(result: Comparison, prepared: Prepared, session: Session, options: Options) -> None:
    """Server at a large share of what our own Offline reached, where there is a target for that."""
    share = SERVER_OF_OFFLINE.get((prepared.config.model, prepared.config.platform))
    offline = next((row for row in result.rows if row.name == Scenario.OFFLINE), None)
    if share is None or offline is None:
        return
    rate = share * statistics.median(offline.ours)
    tuning = session.tuning(Scenario.SERVER)
    session.load(tuning)
    rounds = []
    for number in range(options.rounds):
        ours = session.ours(Scenario.SERVER, tuning, seconds=options.seconds, rate=rate)
        plain = session.plain(Scenario.SERVER, tuning, seconds=options.seconds, ours=ours)
        rounds.append(Round(ours, plain, None))
        logger.info(
            "%s Server at %.1f a second, round %d of %d: p99 ours %.2f, plain %.2f ms",
            *(prepared.manifest.entry, rate, number + 1, options.rounds, ours.p99_ms, plain.p99_ms),
        )
    row = _p99_row(f"Server p99 at {share:g} of our Offline", rounds)
    result.rows.append(row)
    result.runs[row.name] = [dataclasses.asdict(turn) for turn in rounds]
    measured = statistics.median(row.ours)
    result.targets.append(Target(row.name, SERVER_P99_MS, False, " ms", measured))


def figure(scenario: Scenario, run: Ours | Plain) -> float:
    """What a path is compared by: samples per second in Offline, elsewhere the median latency in ms."""
    return run.samples_per_s if scenario == Scenario.OFFLINE else run.p50_ms


def _bare(limit: Limit, scenario: Scenario, samples_per_query: int, seconds: float) -> float | None:
    if scenario == Scenario.SERVER:
        return None
    if scenario == Scenario.OFFLINE:
        return limit.throughput(seconds)
    return limit.query(samples_per_query, seconds).p50_ms


def _rows(scenario: Scenario, rounds: Sequence[Round]) -> list[Row]:
    unit = Unit.SAMPLES_PER_S if scenario == Scenario.OFFLINE else Unit.MS
    rows = [
        Row(
            scenario.value if scenario == Scenario.OFFLINE else f"{scenario} p50",
            unit,
            tuple(figure(scenario, turn.ours) for turn in rounds),
            tuple(figure(scenario, turn.plain) for turn in rounds),
            tuple(turn.bare for turn in rounds if turn.bare is not None),
        )
    ]
    if scenario == Scenario.SERVER:
        rows.append(_p99_row(f"{scenario} p99", rounds))
    cpu = [tuple(run.client_us_per_sample for run in runs) for runs in _by_path(rounds)]
    rows.append(Row("  client CPU a sample", Unit.CLIENT_US, *cpu))
    return rows


def _p99_row(name: str, rounds: Sequence[Round]) -> Row:
    return Row(name, Unit.MS, *(tuple(run.p99_ms for run in runs) for runs in _by_path(rounds)))


def _by_path(rounds: Sequence[Round]) -> tuple[list[Ours], list[Plain]]:
    return [turn.ours for turn in rounds], [turn.plain for turn in rounds]


def _note(scenario: Scenario, tuning: Tuning, samples_per_query: int, rate: float) -> str:
    server = tuning.server
    plain = {
        Scenario.SINGLE_STREAM: "one sample after the other",
        Scenario.MULTI_STREAM: f"{samples_per_query} requests at once, then the next {samples_per_query}",
        Scenario.SERVER: f"as they come, {rate:.1f} a second, the same for both",
        Scenario.OFFLINE: f"{tuning.in_flight * tuning.client_batch} requests of one sample in flight",
    }[scenario]
    return (
        f"{scenario}: {server.instances} instance(s) of {server.threads} thread(s) for both clients; ours: "
        f"up to {tuning.in_flight} requests of up to {tuning.client_batch}; plain: {plain}"
    )


def _tail_note(evidence: Evidence, seconds: float) -> list[str]:
    """Warn where the end of a run, at which instances wait for the last batch, is a large part of it."""
    batch_s = evidence.compute_us / 1e6
    if batch_s < _LONG_TAIL * seconds:
        return []
    return [
        f"Offline: a batch takes {batch_s:.2f} s of {seconds:g} s, at whose end other instances wait for "
        f"the last one: --time {batch_s / _LONG_TAIL:.0f} or more makes that negligible"
    ]


def _summary(scenario: Scenario, turn: Round) -> str:
    unit = Unit.SAMPLES_PER_S if scenario == Scenario.OFFLINE else Unit.MS
    bare = "" if turn.bare is None else f"bare {turn.bare:.2f}, "
    return f"{bare}ours {figure(scenario, turn.ours):.2f}, plain {figure(scenario, turn.plain):.2f} {unit}"


def _add_targets(result: Comparison, prepared: Prepared) -> None:
    key = (prepared.config.model, prepared.config.platform)
    for row in result.rows:
        if row.unit == Unit.CLIENT_US:
            continue
        if row.name == Scenario.OFFLINE and key in OFFLINE_OF_BARE and row.ratio_to_bare:
            bound = OFFLINE_OF_BARE[key]
            result.targets.append(Target("Offline, ours / bare", bound, True, "", row.ratio_to_bare))
        if row.name.startswith(Scenario.SINGLE_STREAM) and key in SINGLE_STREAM_OVER_BARE_MS:
            bound = SINGLE_STREAM_OVER_BARE_MS[key]
            assert row.over_bare is not None
            result.targets.append(Target("SingleStream p50 over bare", bound, False, " ms", row.over_bare))
        if row.ratio_to_plain:
            result.targets.append(Target(f"{row.name}, ours / plain", OF_PLAIN, True, "", row.ratio_to_plain))
    memory = [turn["ours"]["memory_bytes"] for turns in result.runs.values() for turn in turns]
    if memory:
        name = "memory beyond the loaded samples"
        result.targets.append(Target(name, MEMORY_MB, False, " MB", max(memory) / 1e6))

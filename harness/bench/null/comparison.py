"""What a query costs the client: a model that computes nothing, asked by our harness and a plain loop.

Our harness asks it twice where the smallest requests are sent: over connections of its own, and over gRPC's
library, to which the same process gives the same ready-made bytes. What is left between the two is what our
connections are worth.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bench.comparison import Comparison
from harness.bench.figures import NULL_CLIENT_US, NULL_QUERIES_PER_S, Row, Target, Unit
from harness.bench.null import entry
from harness.bench.options import Options
from harness.bench.session import Ours, Plain, Session
from harness.run.config import run_config
from harness.run.mlperf.rounds import Scenario
from harness.run.results import bottleneck
from harness.triton.client import TritonClient
from harness.triton.rpc import Rpc

logger = logging.getLogger(__name__)

_SIDE_PX = 224
_IMAGES_IN_FLIGHT = 64
_MOST_SECONDS = 5.0
"""Tens of thousands of queries; more time would change nothing but the wait."""
_CPU_ROW = "  client CPU a query"


@dataclass(frozen=True)
class Round:
    """One turn of all paths."""

    ours: Ours
    grpc: Ours | None
    """Ours over gRPC's library; None where that is not asked."""
    plain: Plain


def compare_null(repository: Path, client: TritonClient, options: Options, folder: Path) -> Comparison:
    """Measure the cost of asking.

    Args:
        repository: the server's, which the null models are added to.
        client: of the server.
        options: rounds and times.
        folder: for logs.

    Raises:
        HarnessError: a path failed.
    """
    result = Comparison("null model")
    for in_flight, bound in NULL_QUERIES_PER_S.items():
        name = f"{in_flight} in flight, 1 pixel"
        tiny = entry.write_entry(
            repository, f"null_{in_flight}", side_px=1, in_flight=in_flight, transport=run_config.AUTO
        )
        rounds = _measure(result, Session([client], tiny, folder), name, in_flight, options, has_grpc=True)
        row, cpu = _add_rows(result, name, rounds, Unit.QUERIES_PER_S, Unit.CLIENT_US)
        result.targets.append(Target(f"null model, {name}", bound, True, " queries/s", _median(row)))
        result.notes.append(_worth(in_flight, row, cpu))
        if in_flight > 1:
            server = dataclasses.replace(tiny.config.server, client_processes=2)
            two = dataclasses.replace(tiny.config, server=server)
            session = Session([client], dataclasses.replace(tiny, config=two), folder)
            name += ", 2 client processes"
            rounds = _measure(result, session, name, in_flight, options)
            _add_rows(result, name, rounds, Unit.QUERIES_PER_S, Unit.CLIENT_US)
    for transport, bound in NULL_CLIENT_US.items():
        where = "shared memory" if transport == "shm" else "in the message"
        name = f"{_SIDE_PX}x{_SIDE_PX} float32, {where}"
        image = entry.write_entry(
            repository,
            f"null_{_SIDE_PX}_{transport}",
            side_px=_SIDE_PX,
            in_flight=_IMAGES_IN_FLIGHT,
            transport=transport,
        )
        session = Session([client], image, folder)
        rounds = _measure(result, session, name, _IMAGES_IN_FLIGHT, options)
        (row,) = _add_rows(result, name, rounds, Unit.CLIENT_US)
        result.targets.append(Target(f"client CPU, {name}", bound, False, " us", _median(row)))
    result.notes.append(
        f"rounds of at most {_MOST_SECONDS:g} s; one request a sample; images with {_IMAGES_IN_FLIGHT} in "
        "flight; plain sends them in the message; grpc: ours over gRPC's library, given the same ready-made "
        "bytes: on its event loop, or with 1 in flight as messages of one call"
    )
    return result


def _measure(
    result: Comparison,
    session: Session,
    name: str,
    in_flight: int,
    options: Options,
    *,
    has_grpc: bool = False,
) -> list[Round]:
    """Take the paths in turns; all that was measured goes to the result."""
    scenario = Scenario.SINGLE_STREAM if in_flight == 1 else Scenario.OFFLINE
    tuning = entry.tuning(in_flight)
    session.load(tuning, is_override=False)
    seconds = min(options.seconds, _MOST_SECONDS)
    rounds: list[Round] = []
    try:
        for number in range(options.rounds):
            ours = session.ours(scenario, tuning, seconds=seconds)
            grpc = session.ours(scenario, tuning, seconds=seconds, rpc=Rpc.GRPC) if has_grpc else None
            plain = session.plain(scenario, tuning, seconds=seconds, ours=ours)
            rounds.append(Round(ours, grpc, plain))
            logger.info("null model, %s, round %d: %s", name, number + 1, _summary(rounds[-1]))
    finally:
        session.close()
    result.runs[name] = [dataclasses.asdict(turn) for turn in rounds]
    return rounds


def _summary(turn: Round) -> str:
    runs = (("ours", turn.ours), ("grpc", turn.grpc), ("plain", turn.plain))
    told = (f"{path} {run.samples_per_s:.0f} at {run.client_us_per_sample:.1f}" for path, run in runs if run)
    return f"{', '.join(told)} us"


def _add_rows(result: Comparison, name: str, rounds: Sequence[Round], *units: Unit) -> list[Row]:
    """A row in each unit; the verdict is of the round that is the middle one in the first."""
    rows = [
        Row(
            name if unit == units[0] else _CPU_ROW,
            unit,
            ours=tuple(_of(turn.ours, unit) for turn in rounds),
            plain=tuple(_of(turn.plain, unit) for turn in rounds),
            grpc=tuple(_of(turn.grpc, unit) for turn in rounds if turn.grpc),
        )
        for unit in units
    ]
    result.rows += rows
    middle = sorted((turn.ours for turn in rounds), key=lambda run: _of(run, units[0]))[len(rounds) // 2]
    if middle.evidence:
        result.bottlenecks[name] = bottleneck.find(middle.evidence)
    return rows


def _of(run: Ours | Plain, unit: Unit) -> float:
    return run.client_us_per_sample if unit == Unit.CLIENT_US else run.samples_per_s


def _worth(in_flight: int, rate: Row, cpu: Row) -> str:
    """What our connections are worth, in one line."""
    return (
        f"{in_flight} in flight: ours {_span(rate.ours)} queries/s at {_span(cpu.ours)} us of client CPU, "
        f"gRPC's library {_span(rate.grpc)} at {_span(cpu.grpc)}"
    )


def _span(values: Sequence[float]) -> str:
    """The least and the most of all rounds."""
    return "-".join(f"{value:.0f}" for value in sorted({min(values), max(values)}))


def _median(row: Row) -> float:
    return sorted(row.ours)[len(row.ours) // 2]

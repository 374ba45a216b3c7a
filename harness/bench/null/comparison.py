"""What a query costs the client: a model that computes nothing, asked by our harness and a plain loop."""

import dataclasses
import logging
from collections.abc import Callable
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

logger = logging.getLogger(__name__)

_SIDE_PX = 224
_IMAGES_IN_FLIGHT = 64
_MOST_SECONDS = 5.0
"""Tens of thousands of queries; more time would change nothing but the wait."""


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
        row = _measure(
            result, Session(client, tiny, folder), name, in_flight, Unit.QUERIES_PER_S, _rate, options
        )
        result.targets.append(Target(f"null model, {name}", bound, True, " queries/s", _median(row)))
        if in_flight > 1:
            two = dataclasses.replace(tiny.config, client_processes=2)
            session = Session(client, dataclasses.replace(tiny, config=two), folder)
            name += ", 2 client processes"
            _measure(result, session, name, in_flight, Unit.QUERIES_PER_S, _rate, options)
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
        session = Session(client, image, folder)
        row = _measure(result, session, name, _IMAGES_IN_FLIGHT, Unit.CLIENT_US, _client_us, options)
        result.targets.append(Target(f"client CPU, {name}", bound, False, " us", _median(row)))
    result.notes.append(
        f"rounds of at most {_MOST_SECONDS:g} s; one request a sample; images with {_IMAGES_IN_FLIGHT} in "
        "flight; plain sends them in the message"
    )
    return result


def _measure(
    result: Comparison,
    session: Session,
    name: str,
    in_flight: int,
    unit: Unit,
    figure: Callable[[Ours | Plain], float],
    options: Options,
) -> Row:
    """Take our harness and the plain loop in turns; adds to the result."""
    scenario = Scenario.SINGLE_STREAM if in_flight == 1 else Scenario.OFFLINE
    tuning = entry.tuning(in_flight)
    session.load(tuning, is_override=False)
    seconds = min(options.seconds, _MOST_SECONDS)
    ours: list[Ours] = []
    plain: list[Plain] = []
    try:
        for number in range(options.rounds):
            ours.append(session.ours(scenario, tuning, seconds=seconds))
            plain.append(session.plain(scenario, tuning, seconds=seconds, ours=ours[-1]))
            figures = figure(ours[-1]), figure(plain[-1])
            logger.info(
                "null model, %s, round %d: ours %.1f, plain %.1f %s", name, number + 1, *figures, unit
            )
    finally:
        session.close()
    row = Row(name, unit, tuple(map(figure, ours)), tuple(map(figure, plain)))
    result.rows.append(row)
    result.runs[name] = [
        {"ours": dataclasses.asdict(a), "plain": dataclasses.asdict(b)}
        for a, b in zip(ours, plain, strict=True)
    ]
    middle = sorted(ours, key=figure)[len(ours) // 2]
    if middle.evidence:
        result.bottlenecks[name] = bottleneck.find(middle.evidence)
    return row


def _rate(run: Ours | Plain) -> float:
    return run.samples_per_s


def _client_us(run: Ours | Plain) -> float:
    return run.client_us_per_sample


def _median(row: Row) -> float:
    return sorted(row.ours)[len(row.ours) // 2]

"""Server's load on one server for long: the null model, then a real one, and what they hold meanwhile."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from harness.bench.null import entry
from harness.bench.processes import CLIENT
from harness.bench.session import Session, began_s
from harness.bench.soak.readings import INTERVAL_S, RSS, Reading, is_bytes, read
from harness.bench.soak.trend import Trend, trend
from harness.errors import InferenceError
from harness.machine.host.monitor import Monitor
from harness.run.config import run_config
from harness.run.config.tuning import Tuning
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared
from harness.server.lifecycle import ServerInfo
from harness.triton.client import TritonClient

logger = logging.getLogger(__name__)

_LOAD = 0.5
"""Share of what the server reaches for a moment that it is asked for: no queue is to grow."""
_MOST_PER_S = 1000.0
"""LoadGen plans a whole test's queries before the first one."""
_RATE_SECONDS, _RATE_IN_FLIGHT = 3.0, 16
"""How that is found out: as many as Server may have would take a slow model minutes."""
_NULL_IN_FLIGHT = 64

_WARM_UP = 0.2
"""Share of a soak in which pools and caches still fill; it is not judged."""
_ALLOWED_BYTES = 8 << 20
_ALLOWED_SHARE = 0.02
_ALLOWED_COUNT = 2
_NOTED_BYTES = 32
"""Of the client, for each query: LoadGen notes its latency, we when it was issued and answered."""
_FEWEST = 5
RULE = (
    f"flat: after the first {_WARM_UP:.0%}, the median slope comes to no more than "
    f"{_ALLOWED_BYTES >> 20} MiB or {_ALLOWED_SHARE:.0%} of what there was (descriptors and threads: "
    f"{_ALLOWED_COUNT}); the client may note {_NOTED_BYTES} bytes a query, too"
)


@dataclass(frozen=True)
class Soak:
    """One model's."""

    title: str
    rate: float
    """Queries per second."""
    trends: Sequence[Trend]
    readings: Sequence[Reading]

    @property
    def is_flat(self) -> bool:
        """Whether all figures are."""
        return all(one.is_flat for one in self.trends)


def soak_null(client: TritonClient, server: ServerInfo, seconds: float, folder: Path) -> Soak:
    """Soak a model that computes nothing.

    Raises:
        HarnessError: a request failed.
    """
    null = entry.write_entry(
        server.repository, "null_soak", side_px=1, in_flight=_NULL_IN_FLIGHT, transport=run_config.AUTO
    )
    session = Session([client], null, folder)
    tuning = entry.tuning(_NULL_IN_FLIGHT)
    session.load(tuning, is_override=False)
    return _soak("null model", session, tuning, server, seconds, folder)


def soak(prepared: Prepared, client: TritonClient, server: ServerInfo, seconds: float, folder: Path) -> Soak:
    """Soak a real model, which the server's repository has.

    Raises:
        HarnessError: it cannot be loaded, or a request failed.
    """
    session = Session([client], prepared, folder)
    tuning = session.tuning(Scenario.SERVER)
    session.load(tuning)
    title = f"{prepared.config.model} on {prepared.config.platform}"
    return _soak(title, session, tuning, server, seconds, folder)


def _soak(
    title: str, session: Session, tuning: Tuning, server: ServerInfo, seconds: float, folder: Path
) -> Soak:
    try:
        few = dataclasses.replace(tuning, in_flight=min(tuning.in_flight, _RATE_IN_FLIGHT))
        reached = session.ours(Scenario.OFFLINE, few, seconds=_RATE_SECONDS).samples_per_s
        rate = min(_LOAD * reached, _MOST_PER_S)
        logger.info("%s: Server at %.1f queries/s for %g s", title, rate, seconds)
        with Monitor(lambda: read(server), INTERVAL_S) as monitor:
            run = session.ours(Scenario.SERVER, tuning, seconds=seconds, rate=rate)
    finally:
        session.close()
    # What LoadGen's process does before and after is no part of a soak.
    began = began_s(run)
    readings = [one for one in monitor.readings if began <= one.at_s <= began + seconds]
    return Soak(title, rate, judged(readings, rate), readings)


def judged(readings: Sequence[Reading], rate: float) -> list[Trend]:
    """The trend of each figure, after the warm-up, at `rate` queries per second.

    Raises:
        InferenceError: there are too few readings.
    """
    settled = readings[int(len(readings) * _WARM_UP) :]
    if len(settled) < _FEWEST:
        raise InferenceError(f"only {len(settled)} readings of the soak: make it longer")
    at_s = [reading.at_s for reading in settled]
    found = []
    for name in settled[0].figures:
        values = [reading.figures[name] for reading in settled]
        allowed = max(_ALLOWED_BYTES, _ALLOWED_SHARE * values[0]) if is_bytes(name) else _ALLOWED_COUNT
        if name == f"{CLIENT} {RSS}":
            allowed += _NOTED_BYTES * rate * (at_s[-1] - at_s[0])
        found.append(trend(name, at_s, values, allowed))
    return found


def write(soaks: Sequence[Soak], file: Path) -> None:
    """Write soak.json: every reading, and what was made of them."""
    document = [
        {
            **dataclasses.asdict(one),
            "trends": [{**dataclasses.asdict(found), "is_flat": found.is_flat} for found in one.trends],
            "is_flat": one.is_flat,
        }
        for one in soaks
    ]
    file.write_text(json.dumps({"rule": RULE, "soaks": document}, indent=2) + "\n", encoding="utf-8")


def show(soaks: Sequence[Soak], file: Path) -> None:
    """Print a table per model, and the verdict."""
    console = Console(highlight=False, soft_wrap=True)
    for one in soaks:
        title = f"{one.title}: Server at {one.rate:.1f} queries/s, {len(one.readings)} readings"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        table.add_column("")
        for heading in ("first", "last", "an hour", "growth", "allowed", ""):
            table.add_column(heading, justify="right")
        for found in one.trends:
            scale, unit = (1 << 20, ", MiB") if is_bytes(found.name) else (1, "")
            figures = (found.first, found.last, found.per_hour, found.growth, found.allowed)
            cells = (f"{value / scale:.1f}" for value in figures)
            table.add_row(f"{found.name}{unit}", *cells, "flat" if found.is_flat else "GROWS")
        console.print(table)
    is_flat = all(one.is_flat for one in soaks)
    console.print(f"Verdict: {'flat' if is_flat else 'NOT FLAT'} ({RULE})", markup=False)
    console.print(f"Every reading: {file}", markup=False)

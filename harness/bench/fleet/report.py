"""The curve, its verdicts, what it comes to and how near the forecasts are: on stdout, and in fleet.json."""

import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from harness.bench.fleet import check, paper
from harness.bench.fleet.check import Checked, Service
from harness.bench.fleet.cpu import Cores
from harness.bench.fleet.curve import IN_FLIGHT, Point
from harness.bench.fleet.paper import Costs
from harness.machine import environment
from harness.triton.rpc import Rpc

_WANTED = 3.5 / 4
"""Share of n times one server's rate that n servers are to reach."""
_NOBODY = 0.05
"""Share of the cores that others may take without a word."""
_PAYS = 1.05
"""Above what a machine that others use, too, makes of nothing."""
_WIDTH = 120
_CHANNELS = {Rpc.OWN: "connections of our own", Rpc.GRPC: "gRPC's library"}


@dataclass(frozen=True)
class Measurements:
    """All of one command."""

    points: Sequence[Point]
    costs: Costs
    service: Service
    checked: Sequence[Checked]


def best_of(points: Sequence[Point], servers: int) -> Point:
    """The fastest with so many servers, over connections of our own."""
    own = (one for one in points if one.rpc == Rpc.OWN and one.servers == servers)
    return max(own, key=lambda one: one.queries_per_s)


def verdicts(points: Sequence[Point], cores: int) -> list[str]:
    """Whether several servers are worth what they should be, or why they cannot; then of the processes."""
    counts = sorted({one.servers for one in points})
    first = best_of(points, counts[0])
    found = []
    for servers in counts[1:]:
        best = best_of(points, servers)
        ratio, wanted = _times(best, first), _WANTED * servers / first.servers
        line = f"{servers} servers answer {ratio:.2f} times as many queries as {first.servers}"
        found.append(f"{line}, wanted >= {wanted:.2f}: {_word(ratio, wanted, best.cores, cores)}")
    kinds = dict.fromkeys(one.rpc for one in points)
    return [*found, *(_of_processes(points, rpc) for rpc in kinds), *_of_others(points, cores)]


def _word(ratio: float, wanted: float, used: Cores | None, cores: int) -> str:
    word = "met" if ratio >= wanted else "MISSED"
    if used is None:
        return word
    most = ratio * cores / (cores - used.idle)
    if most < wanted:
        word = f"these cores have no more than {most:.2f}"
    return f"{word} ({_told(used)} of {cores} cores)"


def _of_processes(points: Sequence[Point], rpc: Rpc) -> str:
    by_pair = {(one.servers, one.processes): one for one in points if one.rpc == rpc}
    several = {pair: (one, by_pair[pair[0], 1]) for pair, one in by_pair.items() if pair[1] > 1}
    subject = f"client processes over {_CHANNELS[rpc]}"
    if not several:
        return f"{subject}: one was all that was tried"
    told = ", ".join(
        f"{processes} with {servers} server{'s' * (servers > 1)} {_times(one, alone):.2f} "
        f"({_ratio(one.carried_per_s, alone.carried_per_s):.2f})"
        for (servers, processes), (one, alone) in several.items()
    )
    pays = "paid" if any(is_clearly_faster(one, alone) for one, alone in several.values()) else "never paid"
    return (
        f"{subject}, in times what one answered (and of what one would carry on a core of its own, each on "
        f"one): {told}; more than one {pays} on these cores"
    )


def is_clearly_faster(one: Point, other: Point) -> bool:
    """By more than the rounds of either differ."""
    slowest = min(run.ours.samples_per_s for run in one.runs)
    return slowest > max(run.ours.samples_per_s for run in other.runs) and _times(one, other) >= _PAYS


def _times(one: Point, other: Point) -> float:
    return one.queries_per_s / other.queries_per_s


def _ratio(one: float | None, other: float | None) -> float:
    return one / other if one and other else math.nan


def _of_others(points: Sequence[Point], cores: int) -> list[str]:
    """Whether anybody else worked meanwhile, of whom whoever has more processes gets more."""
    others = max((one.cores.others for one in points if one.cores), default=0.0)
    if others <= _NOBODY * cores:
        return []
    return [
        f"other programs took up to {others:.2f} of {cores} cores, and more processes wrest more from them: "
        "compare what is answered for each core used, or measure again without them"
    ]


def _told(cores: Cores) -> str:
    return (
        f"client {cores.client:.2f} + servers {cores.servers:.2f} + others {cores.others:.2f}, idle "
        f"{cores.idle:.2f}"
    )


def show(found: Measurements, file: Path) -> None:
    """Print all of it."""
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)
    table = Table(
        title=f"Null servers and client processes: medians, {IN_FLIGHT} in flight at each server",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in (
        *("rpc", "servers", "processes", "queries/s", "per core", "client\nus", "servers\nus"),
        *("client\ncores", "servers\ncores", "others\ncores", "idle\ncores", "shares"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in found.points:
        table.add_row(*_cells(point))
    console.print(table)
    sections = {
        "Verdict": verdicts(found.points, environment.cpu_count()),
        "Past one box": paper.lines(found.costs),
        "Forecasts of Server's p99": check.summary(found.service, found.checked),
    }
    for title, lines in sections.items():
        console.print(title, style="bold")
        for line in lines:
            console.print(line, markup=False)
        console.print()
    console.print(f"Everything measured: {file}", markup=False)


def _cells(point: Point) -> list[str]:
    cores, (least, most) = point.cores, point.shares
    of_cores = ["-"] * 4
    if cores:
        of_cores = [f"{value:.2f}" for value in dataclasses.astuple(cores)]
    return [
        point.rpc,
        str(point.servers),
        str(point.processes),
        f"{point.queries_per_s:.0f}",
        f"{point.per_core:.0f}" if point.per_core else "-",
        f"{cores.client / point.queries_per_s * 1e6:.0f}" if cores else "-",
        f"{cores.servers / point.queries_per_s * 1e6:.0f}" if cores else "-",
        *of_cores,
        f"{least:.0%}-{most:.0%}" if point.servers > 1 else "-",
    ]


def write(found: Measurements, file: Path) -> None:
    """Write fleet.json."""
    document = {
        "time": int(time.time()),
        "cmdline": shlex.join(sys.argv),
        "environment": dataclasses.asdict(environment.describe()),
        **dataclasses.asdict(found),
        "verdicts": verdicts(found.points, environment.cpu_count()),
        "past_one_box": paper.lines(found.costs),
        "forecasts": check.summary(found.service, found.checked),
    }
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

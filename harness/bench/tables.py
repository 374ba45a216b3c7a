"""A table per comparison, the verdicts and the targets on stdout; everything in bench.json."""

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.bench.comparison import Comparison
from harness.bench.figures import Row, median
from harness.bench.options import Options
from harness.machine import environment

_WIDTH = 120
_HEADINGS = ("unit", "bare", "ours", "grpc", "plain", "ours/bare", "ours/grpc", "ours/plain")
_NONE = "-"


def show(comparisons: Sequence[Comparison], options: Options, file: Path) -> None:
    """Print all tables, then the verdict and the targets of each."""
    console = Console(highlight=False, soft_wrap=True)
    # Wider than a terminal of 80 columns, rather than figures cut short.
    console.width = max(console.width, _WIDTH)
    for comparison in comparisons:
        _show_table(console, comparison, options)
    console.print("Verdict", style="bold")
    for comparison in comparisons:
        for name, bottleneck in comparison.bottlenecks.items():
            _line(console, f"{comparison.title}, {name}: {bottleneck.bound}")
            for reason in bottleneck.reasons:
                _line(console, f"  {reason}")
    console.print("\nTargets (for two CPU cores)", style="bold")
    for comparison in comparisons:
        for target in comparison.targets:
            _line(console, f"{comparison.title}: {target}")
    _line(console, f"\nEverything measured: {file}")


def _show_table(console: Console, comparison: Comparison, options: Options) -> None:
    rounds = f"{options.rounds} round{'s' if options.rounds > 1 else ''} of {options.seconds:g} s"
    table = Table(
        title=f"{comparison.title}: medians of {rounds}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    rows = [(row.name, _cells(row)) for row in comparison.rows]
    # A path that no row has gets no column.
    headings = [heading for heading in _HEADINGS if any(cells[heading] != _NONE for _, cells in rows)]
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "unit" else "right", no_wrap=True)
    for name, cells in rows:
        table.add_row(name, *(cells[heading] for heading in headings))
    console.print(table)
    _line(console, "Ratios are of speed: above 1, ours is faster.")
    for note in comparison.notes:
        _line(console, note)
    console.print()


def _cells(row: Row) -> dict[str, str]:
    return {
        "unit": row.unit.value,
        "bare": _figure(median(row.bare)),
        "ours": _figure(median(row.ours)),
        "grpc": _figure(median(row.grpc)),
        "plain": _figure(median(row.plain)),
        "ours/bare": _ratio(row.ratio_to_bare),
        "ours/grpc": _ratio(row.ratio_to_grpc),
        "ours/plain": _ratio(row.ratio_to_plain),
    }


def _figure(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False)


def write(comparisons: Sequence[Comparison], options: Options, file: Path) -> None:
    """Write bench.json."""
    document = {
        "time": int(time.time()),
        "cmdline": shlex.join(sys.argv),
        "environment": dataclasses.asdict(environment.describe()),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "is_quick": options.is_quick,
        "comparisons": [_comparison(comparison) for comparison in comparisons],
    }
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "title": comparison.title,
        "rows": [
            {
                **dataclasses.asdict(row),
                "median_bare": median(row.bare),
                "median_ours": median(row.ours),
                "median_grpc": median(row.grpc),
                "median_plain": median(row.plain),
                "ratio_to_bare": row.ratio_to_bare,
                "ratio_to_grpc": row.ratio_to_grpc,
                "ratio_to_plain": row.ratio_to_plain,
                "over_bare": row.over_bare,
            }
            for row in comparison.rows
        ],
        "verdicts": {name: dataclasses.asdict(found) for name, found in comparison.bottlenecks.items()},
        "targets": [{**dataclasses.asdict(t), "is_met": t.is_met} for t in comparison.targets],
        "notes": comparison.notes,
        "runs": comparison.runs,
    }

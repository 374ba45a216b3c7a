"""`python -m harness.compare RUN RUN …`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from harness.compare import page
from harness.compare.comparison import COLUMNS, RULE, Comparison, compare, title
from harness.compare.differences import Difference
from harness.errors import ConfigError
from harness.machine import command, files
from harness.machine.command import OneLineParser
from harness.run.results import recorded_run
from harness.run.results.tables import wide_console


def parser() -> argparse.ArgumentParser:
    """All options."""
    result = OneLineParser(
        prog="./run.sh compare",
        description="Show finished runs side by side, each against the first: figures, ratios, whether a "
        "difference is more than noise, and what else was not the same. Runs of different scenarios have no "
        "ratio.",
        epilog="Exit codes: 0 compared; 2 bad input.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("runs", metavar="RUN", type=Path, nargs="+", help="a results folder, or the results.json in it")
    add(
        "--output",
        metavar="FILE",
        type=Path,
        help="page with the curves (default compare.html beside the first run's folder)",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body() -> None:
        options = parser().parse_args(arguments)
        comparison = compare([recorded_run.read(path) for path in options.runs])
        output = options.output or _beside(comparison.rows[0].run.result.folder)
        _show(comparison)
        try:
            files.write(output, page.render(comparison))
        except ConfigError as error:
            raise ConfigError(f"{error}; --output names another file") from error
        sys.stdout.write(f"Curves: {output}\n")

    return command.run(body)


def _beside(folder: Path) -> Path:
    """Where results are, rather than in whatever folder this is called from."""
    return folder.absolute().parent / "compare.html"


def _show(comparison: Comparison) -> None:
    console = wide_console()
    for row in comparison.rows:
        console.print(f"{row.label}: {title(row.run)} ({row.run.name})", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("", "Result") else "right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*row.cells)
    console.print(table)
    console.print("Speed: by MLPerf's metric, against A; above 1 is faster.")
    for sentence in (*comparison.conclusions, RULE):
        console.print(sentence, markup=False)
    for one in comparison.measured:
        console.print(f"{one.group}, {one.name}: {_values(comparison, one)}", markup=False)
    if not comparison.differences:
        console.print("Model, weights, data, settings, server, versions and machine are the same.")
        return
    console.print("\nNot the same:")
    for one in comparison.differences:
        console.print(f"  {one.group}, {one.name}: {_values(comparison, one)}", markup=False)


def _values(comparison: Comparison, one: Difference) -> str:
    return ", ".join(f"{row.label} {value}" for row, value in zip(comparison.rows, one.values, strict=True))


if __name__ == "__main__":
    sys.exit(main())

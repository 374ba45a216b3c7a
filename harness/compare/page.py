"""`compare.html`: the table, and the curves of all runs on top of each other."""

from collections.abc import Sequence

from markupsafe import Markup

from harness.compare import charts
from harness.compare.comparison import COLUMNS, RULE, Comparison, Row, title
from harness.report.charts.latency import Latencies
from harness.report.page import fill
from harness.report.plots import Plot
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario


def render(comparison: Comparison) -> str:
    """The page as HTML, complete in itself."""
    rows = comparison.rows
    return fill(
        "compare.html",
        title=f"{len(rows)} runs compared",
        columns=COLUMNS[1:],
        rows=[
            {
                "label": row.label,
                "series": charts.series(at),
                "title": title(row.run),
                "name": row.run.name,
                "cells": row.cells[1:],
            }
            for at, row in enumerate(rows)
        ],
        conclusions=comparison.conclusions,
        rule=RULE,
        differences=comparison.differences,
        measured=comparison.measured,
        labels=[row.label for row in rows],
        plots=_plots(comparison),
    )


def _plots(comparison: Comparison) -> list[Plot]:
    rows = comparison.rows
    first = rows[0]
    alike = [
        (at, row.label, row.deciding)
        for at, row in enumerate(rows)
        if row.deciding and row.run.scenario == first.run.scenario
    ]
    plots: list[Plot] = []
    if first.deciding and len(alike) > 1:
        plots.append(
            Plot(
                first.deciding.name,
                "What decides in this scenario. A thin line is a run's noise, where that can be told.",
                Markup(charts.bars(alike)),
            )
        )
    drawn = [
        (at, row, row.run.recorded)
        for at, row in enumerate(rows)
        if row.run.recorded and row.run.mode == Mode.PERFORMANCE
    ]
    if drawn:
        plots += [
            _times([(at, row) for at, row, _ in drawn]),
            Plot(
                "Throughput",
                "Samples answered per second, over the time of each run.",
                Markup(charts.throughputs([(at, row.label, recorded) for at, row, recorded in drawn])),
            ),
        ]
    return plots


def _times(drawn: Sequence[tuple[int, Row]]) -> Plot:
    """Latencies of queries; where there is but Offline, which has one, times of its batches."""
    steps = "within a time. Each step up is a tenth of those that are left."
    batches = [(at, row.label, Latencies.of(found.usual)) for at, row in drawn if (found := row.run.batches)]
    if len(batches) == len(drawn):
        picture = charts.latencies(batches, "batches")
        return Plot("Time of a batch by percentile", f"Share done {steps}", Markup(picture))
    curves = [
        (at, row.label, Latencies.of(*times))
        for at, row in drawn
        if row.run.scenario != Scenario.OFFLINE and (times := row.run.latencies_us)
    ]
    return Plot(
        "Latency by percentile", f"Share answered {steps}", Markup(charts.latencies(curves, "queries"))
    )

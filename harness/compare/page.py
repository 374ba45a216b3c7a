"""`compare.html`: the table, and the curves of all runs on top of each other."""

from markupsafe import Markup

from harness.compare import charts
from harness.compare.comparison import COLUMNS, RULE, Comparison, title
from harness.report.charts.latency import Latencies
from harness.report.page import Plot, fill
from harness.run.mlperf.plan import Mode
from harness.run.worker import timeline


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
        curves = [
            (at, row.label, Latencies.of(*timeline.query_latencies_us(recorded, row.run.scenario)))
            for at, row, recorded in drawn
        ]
        plots += [
            Plot(
                "Latency by percentile",
                "Share answered within a time. Each step up is a tenth of those that are left.",
                Markup(charts.latencies(curves)),
            ),
            Plot(
                "Throughput",
                "Samples answered per second, over the time of each run.",
                Markup(charts.throughputs([(at, row.label, recorded) for at, row, recorded in drawn])),
            ),
        ]
    return plots

"""`index.html` of a folder of results: all runs in it, by the command that made them, the newest first."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.machine import files
from harness.report import facts, links
from harness.report.charts.scale import number
from harness.report.page import fill
from harness.run.mlperf.figures import counted
from harness.run.mlperf.rounds import Scenario
from harness.run.results.result import Result
from harness.run.results.shelf import results_in

_MOST = 200
"""The newest."""
_MOST_NAMED = 2
"""Of the models of a command; the others are counted."""


def write(folder: Path) -> Path | None:
    """Write the page of a folder, and return it; None where it has fewer than two results.

    Raises:
        ConfigError: it cannot be written.
    """
    results = results_in(folder, most=_MOST)
    if len(results) < 2:
        return None
    file = folder / links.INDEX_NAME
    files.write(file, render(results, folder))
    return file


def render(results: Sequence[Result], folder: Path) -> str:
    """The page as HTML, complete in itself but for the runs that it leads to."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.invocation or result.folder.name, []).append(result)
    return fill(
        "index.html",
        title=f"Runs in {folder.name}",
        count=len(results),
        groups=[_group(group, folder) for group in reversed(groups.values())],
    )


def _group(results: Sequence[Result], folder: Path) -> dict[str, Any]:
    """The results of one command."""
    first = results[0]
    return {
        "id": first.invocation or first.folder.name,
        "time": time.strftime("%-d %B %Y, %H:%M UTC", time.gmtime(first.time)),
        "name": first.name,
        "what": _what(results),
        "command": facts.command(first.cmdline),
        "rows": [_row(result, folder) for result in results],
    }


def _what(results: Sequence[Result]) -> str:
    """Of which models, in which scenarios: `mobilenet on onnxruntime, Server, Offline`."""
    models = list(dict.fromkeys(f"{result.model} on {result.platform}" for result in results))
    others = len(models) - _MOST_NAMED
    named = models[:_MOST_NAMED] + ([counted(others, "other model")] if others > 0 else [])
    return ", ".join([*named, *dict.fromkeys(result.label for result in results)])


def _row(result: Result, folder: Path) -> dict[str, Any]:
    latencies, accuracy, metric = result.percentiles_ms, result.accuracy, result.metric
    origin = f", {result.rate_origin}" if result.rate_origin else ""
    if result.is_of_answers:
        latencies, metric, origin = {}, None, ""
    if result.scenario == Scenario.OFFLINE:
        # All its samples are asked for at once: how long the median one took is half of the test.
        latencies = {}
    return {
        "href": links.to(result.folder / links.REPORT_NAME, folder).href,
        "model": f"{result.model} on {result.platform}",
        "scenario": result.label + origin,
        "metric": f"{number(metric.value)} {metric.unit}" if metric else "-",
        "p50": number(latencies[50.0]) if 50.0 in latencies else "-",
        "p99": number(latencies[99.0]) if 99.0 in latencies else "-",
        "accuracy": f"{accuracy.value:.2%}" if accuracy else "-",
        "verdict": result.word,
        "kind": result.kind.value,
        "disturbances": "" if result.is_of_answers else "; ".join(result.disturbances),
    }

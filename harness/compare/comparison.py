"""Runs side by side: the rows of the table, and the sentences below it."""

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare import metrics
from harness.compare.differences import Difference, differences
from harness.compare.noise import conclusion, may_be_ranked, speed
from harness.errors import ConfigError
from harness.report.charts.scale import number
from harness.report.noise import PARTS, Deciding, deciding, found_rate
from harness.run.results.recorded_run import RecordedRun

COLUMNS = ("", "MLPerf metric", "p50 ms", "p90 ms", "p99 ms", "Accuracy", "Result", "Speed")
RULE = (
    f"Noise: a run is cut into {PARTS} equal parts; the 95% interval of the mean of their figures (Student's "
    "t) is its noise. Two runs differ where their ratio is beyond both intervals together. What changes from "
    "run to run, no single run shows: repeat each to see it."
)
_SAME_RATE = 0.01
"""Offered rates that differ by less are the same: latency hardly depends on it."""
_SMALL_RATIO = 0.01
"""Of speeds; below it three decimals show too little."""


@dataclass(frozen=True)
class Row:
    """One run."""

    label: str
    """A letter."""
    run: RecordedRun
    cells: tuple[str, ...]
    """In the order of `COLUMNS`."""
    deciding: Deciding | None


@dataclass(frozen=True)
class Comparison:
    """All of it."""

    rows: tuple[Row, ...]
    conclusions: tuple[str, ...]
    """What the figures mean, a sentence each."""
    differences: tuple[Difference, ...]
    measured: tuple[Difference, ...]
    """What the servers' metrics said during each; it always differs, and explains rather than tells apart."""


def compare(runs: Sequence[RecordedRun]) -> Comparison:
    """Compare runs with the first of them.

    Raises:
        ConfigError: fewer than two, or more than there are letters for.
    """
    if not 2 <= len(runs) <= len(string.ascii_uppercase):
        raise ConfigError(
            f"{len(runs)} run{'s' if len(runs) != 1 else ''} given: a comparison takes 2 to "
            f"{len(string.ascii_uppercase)} results folders"
        )
    first = runs[0]
    rows = tuple(
        Row(label, run, (label, *_cells(first, run)), deciding(run))
        for label, run in zip(string.ascii_uppercase, runs, strict=False)
    )
    conclusions = [
        f"{row.label} is {row.run.result.verdict}: its figures count for nothing in MLPerf."
        for row in rows
        if not row.run.result.is_valid
    ]
    conclusions += [
        f"{row.label} was measured on a busy machine: {'; '.join(row.run.result.disturbances)}."
        for row in rows
        if row.run.result.disturbances
    ]
    conclusions += [sentence for row in rows[1:] if (sentence := _sentence(rows[0], row))]
    measured = tuple(metrics.measured(runs))
    return Comparison(rows, tuple(conclusions), tuple(differences(runs)), measured)


def _cells(first: RecordedRun, run: RecordedRun) -> tuple[str, ...]:
    metric, accuracy, ratio = run.result.metric, run.result.accuracy, speed(first, run)
    percentiles, origin = run.result.percentiles_ms, run.result.rate_origin
    return (
        f"{number(metric.value)} {metric.unit}{f', {origin}' if origin else ''}" if metric else "-",
        *(number(percentiles[level]) if level in percentiles else "-" for level in (50.0, 90.0, 99.0)),
        f"{accuracy.value:.2%}" if accuracy else "-",
        run.result.verdict.value,
        _ratio(ratio) if ratio is not None else "-",
    )


def _ratio(ratio: float) -> str:
    """Three decimals, or two digits where those would all be 0."""
    return f"{ratio:.3f}" if ratio >= _SMALL_RATIO else f"{ratio:.2g}"


def _sentence(first: Row, other: Row) -> str:
    """What can be said of one run against the first."""
    pair = f"{other.label} against {first.label}"
    if first.run.scenario != other.run.scenario:
        both = f"{other.run.scenario} and {first.run.scenario}"
        return f"{pair}: {both} measure different things, so there is no ratio."
    if without := [row.label for row in (first, other) if not row.run.result.metric]:
        return f"{pair}: no performance figure in {' and '.join(without)}, so there is no ratio."
    if not may_be_ranked(first.run, other.run):
        return (
            f"{pair}: not both have the same metric, as an offered rate and one that was found are two, "
            "so there is no ratio."
        )
    ours, theirs = found_rate(first.run), found_rate(other.run)
    disturbed = _disturbed(first, other)
    if ours and theirs:
        return f"{pair}: {conclusion(ours, theirs, disturbed)}."
    if not (first.deciding and other.deciding):
        return ""
    rate, another = first.run.offered_qps, other.run.offered_qps
    if rate and another and not math.isclose(rate, another, rel_tol=_SAME_RATE):
        return (
            f"{pair}: asked at {number(another)} and {number(rate)} queries/s, on which rate and latency "
            "depend; which is faster is seen with the same --qps, or without."
        )
    return f"{pair}: {conclusion(first.deciding, other.deciding, disturbed)}."


def _disturbed(*rows: Row) -> str:
    """What used the machine beside two runs; empty where nothing did."""
    found = [(row.label, row.run.result.disturbances) for row in rows]
    return "; ".join(f"in {label}, {', '.join(all_of)}" for label, all_of in found if all_of)


def title(run: RecordedRun) -> str:
    """A run in words."""
    result = run.result
    of = f" ({result.precision})" if result.precision else ""
    name = f"{result.name}: " if result.name else ""
    return f"{name}{result.model} on {result.platform}{of}, {result.scenario}"

"""The top of a page: the figure that counts, how sure it is, and the strip of figures below it."""

from dataclasses import dataclass

import numpy as np

from harness.answers.accuracy import Accuracy
from harness.report import noise, plots
from harness.report.charts.scale import number
from harness.report.noise import Deciding
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.verdict import Metric
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import RateOrigin, Verdict

_MEANING = {
    Scenario.SINGLE_STREAM: "90th percentile latency of a query of one sample, with the margin of LoadGen's "
    "early stopping. Lower is better.",
    Scenario.MULTI_STREAM: "99th percentile latency of a query of {samples_per_query} samples, with the "
    "margin of LoadGen's early stopping. Lower is better.",
    Scenario.SERVER: "Completed samples per second under Poisson arrivals; valid if 99% of the queries are "
    "answered within {bound} ms.",
    Scenario.OFFLINE: "Samples per second of one large query. Higher is better.",
}
_WHY = "near its limit, a little more has a server's queue grow, and p99 leaps."
_OPEN = (
    " \N{PLUS-MINUS SIGN}, of that rate: as far as two searches of a quiet machine differ, or its own tests "
    "leave it open."
)
_LEAP = 0.5
"""Share of the bound below which a p99 does not look like the last one that keeps it."""


@dataclass(frozen=True)
class Headline:
    """The largest figure of a page."""

    value: str
    unit: str
    meaning: str
    noise: str = ""
    """Half the width of its interval, in percent; empty where it is not known."""


@dataclass(frozen=True)
class Cell:
    """A figure of the strip below the headline."""

    name: str
    value: str
    unit: str = ""
    style: str = ""


def of_run(run: RecordedRun) -> Headline | None:
    """MLPerf's figure; of a Server test at a rate that somebody chose, the latency that it led to.

    None where there is no such figure, or it means nothing, as in a run that only asks for the answers.
    """
    metric = run.result.metric
    if metric is None or run.result.is_of_answers:
        return None
    p99_ms = run.result.percentiles_ms.get(99.0)
    if run.scenario == Scenario.SERVER and run.result.rate_origin != RateOrigin.FOUND and p99_ms:
        return _of_chosen_rate(run, metric, p99_ms)
    meaning = _MEANING[run.scenario].format(
        samples_per_query=run.plan.samples_per_query if run.plan else 1, bound=f"{run.bound_ms or 0.0:.4g}"
    )
    note = f" {run.result.rate_note}." if run.result.rate_note else ""
    if (found := noise.found_rate(run)) and run.offered_qps:
        # Beside the rate that is so sure: what a short test completed of it may be further away.
        rate = f"{number(run.offered_qps)} \N{PLUS-MINUS SIGN}{_percent(found)} queries/s"
        return Headline(number(metric.value), f"{metric.unit}, at {rate} found", f"{meaning}{note}{_OPEN}")
    sure = noise.deciding(run)
    return Headline(number(metric.value), metric.unit, f"{meaning}{note}{_known(sure)}", _percent(sure))


def _of_chosen_rate(run: RecordedRun, metric: Metric, p99_ms: float) -> Headline:
    sure = noise.deciding(run)
    origin = run.result.rate_origin or RateOrigin.OFFERED
    rate = number(run.offered_qps or metric.value)
    note = f" {run.result.rate_note}." if run.result.rate_note else ""
    return Headline(
        number(p99_ms),
        f"ms p99 of {run.bound_ms or 0.0:.4g} ms, at {rate} queries/s {origin}",
        f"99th percentile latency under Poisson arrivals, which must not be above the bound.{note} MLPerf's "
        f"metric, {metric.name}, is {number(metric.value)}/s: what the rate was chosen to be.{_known(sure)}",
        _percent(sure),
    )


def _percent(found: Deciding | None) -> str:
    return f"{found.noise:.1%}" if found and found.noise is not None else ""


def _known(found: Deciding | None) -> str:
    """What its noise is, or why there is none."""
    if found is None:
        return ""
    if found.noise is None:
        return f" How sure it is: {found.why_unknown}."
    return " \N{PLUS-MINUS SIGN}: 95% interval, from the eighths of this run."


def _left_open(run: RecordedRun) -> list[str]:
    """What the tests of a search say of the rate that it found."""
    between = noise.left_open(run.tried)
    if not between:
        return []
    low, found, high = between
    again = [one for one in run.tried if one.rate == found]
    p99s = ", ".join(number(one.p99_ms) for one in again if one.is_kept)
    broken = sum(not one.is_kept for one in again)
    over = f", and {broken} broke the bound" if broken else ""
    failed = f", {high:.4g} in none" if high > found else ""
    times = f"{len(again)} tests" if len(again) > 1 else "One test"
    return [
        f"{times} at {found:.4g} queries/s: p99 {p99s} ms{over}. {low:.4g} kept the bound in each of its "
        f"tests{failed}."
    ]


def missing(run: RecordedRun) -> str:
    """Why there is no headline."""
    if run.result.verdict == Verdict.FAILED:
        return "What a failed run measured does not count."
    if run.result.is_of_answers:
        return "This run asks whether the answers are right: so few queries show no speed."
    if run.mode is None:
        return "Only accuracy was tested; there is no performance figure."
    if run.result.is_cut:
        return f"There is no performance figure: {run.result.rate_note}. All below is of what was answered."
    return "LoadGen gave no figure for this scenario."


def strip(run: RecordedRun) -> list[Cell]:
    """What a reader looks for next."""
    result, accuracy = run.result, run.result.accuracy
    if accuracy and (run.mode is None or result.is_of_answers):
        return _of_accuracy(accuracy)
    cells = _of_batches(run) if run.scenario == Scenario.OFFLINE else _of_latencies(run)
    if accuracy:
        is_met = accuracy.is_met
        missed = "" if is_met else f"below {accuracy.threshold:.2%}"
        style = "" if is_met else "is-over is-stacked"
        cells.append(Cell("Accuracy", f"{accuracy.value:.2%}", missed, style))
    count = result.figures.count if result.figures else None
    if count is not None:
        cells.append(Cell("Samples" if run.scenario == Scenario.OFFLINE else "Queries", f"{count:,}"))
    joules = result.test.energy_per_sample_j
    if joules is not None:
        cells.append(Cell("Energy of a sample", number(joules), "J, all GPUs"))
    if result.is_cut and result.figures:
        cells.append(Cell("Ended early, after", number(result.figures.took or 0.0), "s"))
    if result.test.test_s:
        name = "Whole search" if run.mode == Mode.FIND_PEAK else "Duration"
        cells.append(Cell(name, number(result.test.test_s), "s"))
    return cells


def _of_latencies(run: RecordedRun) -> list[Cell]:
    cells, bound, ranked = [], run.bound_ms, run.ranked_percentile
    for level, value in run.result.percentiles_ms.items():
        if level in plots.MARKED:
            styles = ["is-ranked"] if level == ranked else []
            if level == ranked and bound and value > bound:
                styles.append("is-over")
            cells.append(Cell(f"p{level:g} latency", number(value), "ms", " ".join(styles)))
    if bound:
        cells.append(Cell("p99 bound", f"{bound:.4g}", "ms"))
    if run.punctuality:
        late_ms = float(np.percentile(run.punctuality.late_us, 99)) / 1e3
        cells.append(Cell("p99 lateness", number(late_ms), "ms"))
    return cells


def _of_batches(run: RecordedRun) -> list[Cell]:
    """Offline: latencies of its one query say nothing that its batches do not."""
    batches = run.batches
    if batches is None:
        return []
    cells = [
        Cell("Time of a batch", number(float(np.median(batches.usual)) / 1e3), "ms"),
        Cell("Batches", f"{len(batches.took_us):,}"),
    ]
    if batches.are_enough:
        cells += [
            Cell("Idle at the start", number(batches.start_up_us / 1e6), "s"),
            Cell("Idle at the end", number(batches.tail_us / 1e6), "s"),
            Cell("A longer run adds", f"{batches.more:.1%}"),
        ]
    return cells


def _of_accuracy(found: Accuracy) -> list[Cell]:
    """Where accuracy is the headline, what it is made of."""
    cells = [Cell("Samples", f"{found.total:,}")]
    if found.good is not None:
        cells.append(Cell("Right", f"{found.good:,}"))
    if found.threshold is not None:
        cells.append(Cell("Target", f"{found.threshold:.2%}"))
    return cells


def notes(run: RecordedRun) -> list[str]:
    """What must be known to read the charts."""
    if run.mode is None:
        return []
    found = [*_left_open(run), *_why_it_ended(run)]
    if run.recorded is None:
        found.append(
            "This run left no record of its requests (timeline.npz), so nothing can be drawn over time."
        )
    elif run.mode == Mode.FIND_PEAK:
        rates = "one rate" if len(run.peak) == 1 else f"{len(run.peak) or 'several'} rates"
        found.append(
            f"LoadGen's search tried {rates}, and found none; what is drawn is of all its tests, one after "
            "the other."
        )
    if (batches := run.batches) and not batches.are_enough:
        found.append(
            "Too few batches to tell how long instances were idle at both ends: "
            f"{len(batches.took_us)}, where {batches.fewest} are needed; let it run longer (--time)."
        )
    return found


def _why_it_ended(run: RecordedRun) -> list[str]:
    """Why a search went no higher than the rate that it found."""
    probes, bound, search = run.tried, run.bound_ms, run.result.search
    kept = [one for one in probes if one.is_kept]
    if not kept or not bound:
        return []
    rate = (search.found if search else None) or max(one.rate for one in kept)
    over = [one for one in probes if one.rate > rate and not one.is_kept]
    if not over:
        return [f"The search ended at {rate:.4g} queries/s, since it had made as many tests as it may."]
    above = min(over, key=lambda one: one.rate)
    cut = " when it was cut short" if above.is_cut else ""
    p99_ms = next(one.p99_ms for one in reversed(kept) if one.rate == rate)
    leap = f" {number(p99_ms)} ms at {rate:.4g} leave no room: {_WHY}" if p99_ms < _LEAP * bound else ""
    return [
        f"The search ended at {rate:.4g} queries/s, since at {above.rate:.4g} p99 was "
        f"{number(above.p99_ms)} ms{cut}, with more queries over the bound of {bound:.4g} ms than are "
        f"allowed.{leap}"
    ]

"""Which charts a run gets, by scenario, and what is said of each."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from harness.report.charts import activity, course, latency, rates, telemetry, throughput
from harness.report.charts.latency import Latencies
from harness.report.charts.scale import number
from harness.run.mlperf.figures import counted
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.results.batches import Batches
from harness.run.results.recorded_run import RecordedRun

MARKED = (50.0, 90.0, 99.0, 99.9)
"""Percentiles that charts and the strip below the headline name."""
_MARKED_BATCHES = MARKED[:3]
_MOST_SPANS = 60


@dataclass(frozen=True)
class Plot:
    """A chart with its words."""

    title: str
    caption: str
    picture: Markup

    @classmethod
    def of(cls, title: str, caption: str, picture: str) -> "Plot":
        """One whose picture is SVG of ours."""
        return cls(title, caption, Markup(picture))


def of_performance(run: RecordedRun) -> list[Plot]:
    """What LoadGen measured, and how it went."""
    found = _search(run)
    if run.recorded is None or run.mode is None:
        return found
    if run.mode == Mode.FIND_PEAK:
        return [*found, *_course(run), _throughput(run)]
    if batches := run.batches:
        return [_throughput(run), *_batches(batches)]
    found += [*_latencies(run), *_course(run), *_lateness(run)]
    # Of streams it is the latency's inverse.
    return [*found, _throughput(run)] if run.scenario == Scenario.SERVER else found


def of_server(run: RecordedRun) -> list[Plot]:
    """What Triton counted and told meanwhile."""
    return [*_of_statistics(run), *_of_metrics(run)]


def _of_statistics(run: RecordedRun) -> list[Plot]:
    statistics = run.result.test.statistics
    if statistics is None or not statistics.requests or not statistics.executions_by_batch_size:
        return []
    evidence = run.evidence
    over = ", over all rates of the search" if run.mode == Mode.FIND_PEAK else ""
    return [
        Plot.of(
            "Executed batches",
            f"Share of {counted(statistics.executions, 'batch', 'batches')} by size; on average "
            f"{number(statistics.mean_batch_size)} samples{over}.",
            activity.batch_sizes(statistics.executions_by_batch_size),
        ),
        Plot.of(
            "Where the time goes",
            "Mean time of a request, one step after the other; the batch is that which the request was in"
            f"{over}.",
            activity.request_time(statistics, evidence.request_us if evidence else None),
        ),
    ]


def _of_metrics(run: RecordedRun) -> list[Plot]:
    courses = run.courses
    if not telemetry.has_course(courses):
        return []
    each = f", a line for each of {len(courses)} servers" if len(courses) > 1 else ""
    told = {
        "CPUs": any(value is not None for one in courses for value in one.cpu),
        "GPUs": any(value is not None for one in courses for value in one.gpu),
    }
    busy = " and ".join(name for name, is_told in told.items() if is_told)
    waiting = "the requests that waited in Triton's queue"
    words = f"How busy its machine's {busy} were, and below it {waiting}" if busy else f"T{waiting[1:]}"
    return [Plot.of("Server's own metrics", f"{words}; read once a second{each}.", telemetry.course(courses))]


def _search(run: RecordedRun) -> list[Plot]:
    probes = run.tried
    if not probes or not run.bound_ms:
        return []
    caption = (
        "p99 latency of each test by the rate that it offered, red where too many queries were over the bound"
    )
    large = "; the large ones are of full length" if any(one.is_confirming for one in probes) else ""
    beyond = "; triangles are beyond the axis" if rates.has_beyond(probes, run.bound_ms) else ""
    return [Plot.of("Search for the rate", f"{caption}{large}{beyond}.", rates.probes(probes, run.bound_ms))]


def _latencies(run: RecordedRun) -> list[Plot]:
    found = run.latencies_us
    if found is None:
        return []
    latencies = Latencies.of(*found)
    marks = {level: ms for level, ms in run.result.percentiles_ms.items() if level in MARKED}
    across = latency.axis([latencies], run.bound_ms)
    since = ""
    if run.scenario == Scenario.SERVER:
        since = " since a query was due" if run.punctuality else " since the client was asked"
    whose = "their" if run.result.is_cut else "LoadGen's"
    return [
        Plot.of(
            "Latency",
            f"Share of queries by latency{since}; the dotted lines are {whose} percentiles.",
            latency.histogram(latencies, across, marks, run.bound_ms, "queries"),
        ),
        Plot.of(
            "Latency by percentile",
            "Share of queries answered within a time. Each step up is a tenth of those that are left; the "
            f"dots are {whose} percentiles.",
            latency.percentiles([("curve", "", latencies)], across, marks, run.bound_ms, "queries"),
        ),
    ]


def _course(run: RecordedRun) -> list[Plot]:
    """Latency over time, of queries by when they were issued."""
    recorded, found = run.recorded, run.latencies_us
    if recorded is None or found is None:
        return []
    latencies_us, _ = found
    issued_us = np.unique(recorded.issued_us) if run.scenario == Scenario.MULTI_STREAM else recorded.issued_us
    at_s = (np.sort(issued_us) if run.punctuality else issued_us) / 1e6
    caption = "Of the queries of each moment: what drifts, warms up or is slowed down shows here."
    title = "Latency of queries, over time"
    picture = course.over_time("latency-over-time", title, at_s, latencies_us / 1e3, run.bound_ms)
    return [Plot.of("Latency over time", caption, picture)]


def _lateness(run: RecordedRun) -> list[Plot]:
    found = run.punctuality
    if found is None:
        return []
    caption = "How long after LoadGen's schedule a query reached the client; latencies above include it."
    picture = course.over_time(
        "lateness", "Lateness of queries, over time", found.due_us / 1e6, found.late_us / 1e3
    )
    return [Plot.of("Lateness of the client", caption, picture)]


def _batches(batches: Batches) -> list[Plot]:
    times = Latencies.of(batches.usual)
    marks = {level: times.at(level / 100) for level in _MARKED_BATCHES}
    took_ms, across = batches.took_us / 1e3, latency.axis([times])
    return [
        Plot.of(
            "Time of a batch",
            "Share of batches by time, from the answer to an instance's batch before.",
            latency.histogram(times, across, marks, None, "batches", name="batch-times", quantity="time"),
        ),
        Plot.of(
            "Time of a batch over time",
            "Of the batches answered at each moment: what drifts, warms up or is slowed down shows here.",
            course.over_time(
                "batches-over-time", "Time of a batch, over time", batches.ended_us / 1e6, took_ms, per_span=2
            ),
        ),
    ]


def _throughput(run: RecordedRun) -> Plot:
    recorded, batches = run.recorded, run.batches
    assert recorded is not None
    # A batch's samples are many, and their time is its own.
    spans = min(_MOST_SPANS, max(4, len(batches.ended_us) // 2)) if batches else None
    over_time = throughput.rates(recorded.completed_us, recorded.samples, spans)
    mean = run.samples_per_s if run.mode == Mode.PERFORMANCE else None
    instances, shaded = None, ""
    if batches and batches.are_enough:
        instances = throughput.Instances(batches.instances, batches.start_up_us / 1e6, batches.tail_us / 1e6)
        shaded = "; at both ends, the time in which instances had nothing to do is shaded"
    return Plot.of(
        "Throughput",
        f"Samples answered per second, in spans of {number(over_time.span_s)} s{shaded}.",
        throughput.draw(over_time, mean, run.offered_qps, instances),
    )

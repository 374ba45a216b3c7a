"""A run's page: what is on it, in which words."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.answers import boxes
from harness.answers.accuracy import Accuracy
from harness.models import MODELS
from harness.report import facts, pictures
from harness.report.charts import activity, latency, rates, telemetry
from harness.report.charts.latency import Latencies
from harness.report.charts.scale import number
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.results import bottleneck
from harness.run.results.bottleneck import Bound
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import Kind, Verdict
from harness.run.worker import timeline

REPORT_NAME = "report.html"
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_MEANING = {
    Scenario.SINGLE_STREAM: "90th percentile latency of a query of one sample, with the margin of LoadGen's "
    "early stopping. Lower is better.",
    Scenario.MULTI_STREAM: "99th percentile latency of a query of {samples_per_query} samples, with the "
    "margin of LoadGen's early stopping. Lower is better.",
    Scenario.SERVER: "Completed samples per second under Poisson arrivals; valid if 99% of the queries are "
    "answered within {bound} ms.",
    Scenario.OFFLINE: "Samples per second of one large query. Higher is better.",
}
_MEANING_OF_BOUND = {
    Bound.SERVER: "A request spends most of its life in Triton: a faster model, more cores or other batches "
    "help.",
    Bound.CLIENT: "The client's CPU is the limit: more --client-processes, or shared memory, help.",
    Bound.TRANSPORT: "Neither Triton nor the client works for most of a request's life: gRPC, the kernel and "
    "waiting for a core do.",
}


def _breakable(name: str) -> Markup:
    """A name or path that may be cut after each underscore and slash where it is too long for its line."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/])(?=[^_/])", name))


_TEMPLATES.filters["breakable"] = _breakable


@dataclass(frozen=True)
class Plot:
    """A chart with its words."""

    title: str
    caption: str
    picture: Markup


@dataclass(frozen=True)
class Cell:
    """A figure of the strip below the headline."""

    name: str
    value: str
    unit: str = ""
    style: str = ""


def render(run: RecordedRun) -> str:
    """The page as HTML, complete in itself."""
    return fill("report.html", **_content(run))


def fill(template: str, **content: Any) -> str:
    """Fill a template of this package in."""
    return _TEMPLATES.get_template(template).render(**content)


def _content(run: RecordedRun) -> dict[str, Any]:
    result = run.result
    spec = MODELS.get(result.model)
    model = spec.title if spec else result.model
    return {
        "title": f"{model} on {result.platform}, {result.scenario}: {result.verdict}",
        "model": model,
        "platform": result.platform + (f" ({result.precision})" if result.precision else ""),
        "scenario": result.scenario.value,
        "time": time.strftime("%-d %B %Y, %H:%M UTC", time.gmtime(result.time)),
        "time_iso": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(result.time)),
        "verdict": result.verdict.value,
        "is_bad": not result.is_valid,
        "metric": _metric(run),
        "metric_missing": _metric_missing(run),
        "reasons": result.reasons,
        "doubts": [_sentence(doubt) for doubt in result.doubts],
        "is_official": result.is_official,
        "is_short": result.kind == Kind.QUICK,
        "round": run.rules.round or "?",
        "deviations": _sentence("; ".join(result.deviations)),
        "strip": _strip(run),
        "notes": _notes(run),
        "plots": _plots(run),
        "plots_of_server": [*_plots_of_server(run), *_plots_of_metrics(run)],
        "bottleneck": _bottleneck(run),
        "accuracy": _accuracy(run),
        "pictures": pictures.embedded(result.folder),
        "min_score": boxes.MIN_SCORE,
        "most_boxes": boxes.MOST_BOXES,
        "command": _command(result.cmdline),
        "options": facts.options(run),
        "of_test": facts.of_test(run),
        "machine": facts.machine(run),
    }


def _command(cmdline: str) -> str:
    """As it is typed: sys.argv names the file of a module that was run by name."""
    program, _, arguments = cmdline.partition(" ")
    commands = {"harness/__main__.py": "bench", "harness/demo.py": "demo"}
    typed = [f"./run.sh {word} {arguments}" for end, word in commands.items() if program.endswith(end)]
    return typed[0].strip() if typed else cmdline


def _metric(run: RecordedRun) -> dict[str, str] | None:
    metric = run.result.metric
    if metric is None:
        return None
    meaning = _MEANING[run.scenario].format(
        samples_per_query=run.plan.samples_per_query if run.plan else 1, bound=f"{run.bound_ms or 0.0:.4g}"
    )
    note = run.result.rate_note
    meaning += f" {note}." if note else ""
    unit = f"{metric.unit}, {run.result.rate_origin}" if run.result.rate_origin else metric.unit
    return {"value": number(metric.value), "unit": unit, "meaning": meaning}


def _metric_missing(run: RecordedRun) -> str:
    if run.result.verdict == Verdict.FAILED:
        return "What a failed run measured does not count."
    if run.mode is None:
        return "Only accuracy was tested; there is no performance figure."
    return "LoadGen gave no figure for this scenario."


def _strip(run: RecordedRun) -> list[Cell]:
    cells = []
    result, bound, ranked = run.result, run.bound_ms, run.ranked_percentile
    for level, value in result.percentiles_ms.items():
        if level in (50.0, 90.0, 99.0, 99.9):
            styles = ["is-ranked"] if level == ranked else []
            if level == ranked and bound and value > bound:
                styles.append("is-over")
            cells.append(Cell(f"p{level:g} latency", number(value), "ms", " ".join(styles)))
    if bound:
        cells.append(Cell("p99 bound", f"{bound:.4g}", "ms"))
    accuracy = result.accuracy
    if accuracy and run.mode is None:
        return _strip_of_accuracy(accuracy)
    if accuracy:
        is_met = accuracy.is_met
        missed = "" if is_met else f"below {accuracy.threshold:.2%}"
        cells.append(
            Cell("Accuracy", f"{accuracy.value:.2%}", missed, "" if is_met else "is-over is-stacked")
        )
    count = result.figures.count if result.figures else None
    if count is not None:
        cells.append(Cell("Samples" if run.scenario == Scenario.OFFLINE else "Queries", f"{count:,}"))
    joules = result.test.energy_per_sample_j
    if joules is not None:
        cells.append(Cell("Energy of a sample", number(joules), "J, GPUs"))
    if result.test.test_s:
        name = "Whole search" if run.mode == Mode.FIND_PEAK else "Duration"
        cells.append(Cell(name, number(result.test.test_s), "s"))
    return cells


def _strip_of_accuracy(found: Accuracy) -> list[Cell]:
    """Where accuracy is the headline, what it is made of."""
    cells = [Cell("Samples", f"{found.total:,}")]
    if found.good is not None:
        cells.append(Cell("Right", f"{found.good:,}"))
    if found.threshold is not None:
        cells.append(Cell("Target", f"{found.threshold:.2%}"))
    return cells


def _notes(run: RecordedRun) -> list[str]:
    if run.mode is None:
        return []
    if run.recorded is None:
        return ["This run left no record of its requests (timeline.npz), so nothing can be drawn over time."]
    if run.mode == Mode.FIND_PEAK:
        return [
            "LoadGen's search tried many rates, and found none; what is drawn is of all its tests, one after "
            "the other."
        ]
    return []


def _plots(run: RecordedRun) -> list[Plot]:
    recorded, search = run.recorded, run.result.search
    plots = []
    if search and search.probes and run.bound_ms:
        plots.append(
            Plot(
                "Search for the rate",
                "p99 latency of each test at the rate that it offered, red where too many queries were over "
                "the bound; the large ones are of full length.",
                Markup(rates.probes(search.probes, run.bound_ms)),
            )
        )
    if recorded is None:
        return plots
    if run.mode == Mode.PERFORMANCE:
        latencies = Latencies.of(*timeline.query_latencies_us(recorded, run.scenario))
        marks = {
            level: ms for level, ms in run.result.percentiles_ms.items() if level in (50.0, 90.0, 99.0, 99.9)
        }
        what = "samples" if run.scenario == Scenario.OFFLINE else "queries"
        across = latency.axis([latencies], run.bound_ms)
        since = " since the start of the one query" if run.scenario == Scenario.OFFLINE else ""
        plots += [
            Plot(
                "Latency",
                f"Share of {what} by latency{since}; the dotted lines are LoadGen's percentiles.",
                Markup(latency.histogram(latencies, across, marks, run.bound_ms, what)),
            ),
            Plot(
                "Latency by percentile",
                f"Share of {what} answered within a time. Each step up is a tenth of those that are left.",
                Markup(latency.percentiles([("curve", "", latencies)], across, marks, run.bound_ms, what)),
            ),
        ]
    over_time = activity.rates(recorded.completed_us, recorded.samples)
    is_one_rate = run.mode == Mode.PERFORMANCE
    mean = run.samples_per_s if is_one_rate else None
    plots.append(
        Plot(
            "Throughput",
            f"Samples answered per second, in spans of {number(over_time.span_s)} s.",
            Markup(activity.throughput(over_time, mean, run.offered_qps)),
        )
    )
    return plots


def _plots_of_server(run: RecordedRun) -> list[Plot]:
    statistics = run.result.test.statistics
    if statistics is None or not statistics.requests or not statistics.executions_by_batch_size:
        return []
    evidence = run.evidence
    over = ", over all rates of the search" if run.mode == Mode.FIND_PEAK else ""
    return [
        Plot(
            "Executed batches",
            f"Share of {statistics.executions:,} batches by size; on average "
            f"{number(statistics.mean_batch_size)} samples{over}.",
            Markup(activity.batch_sizes(statistics.executions_by_batch_size)),
        ),
        Plot(
            "Where the time goes",
            "Mean time of a request, one step after the other; the batch is that which the request was in"
            f"{over}.",
            Markup(activity.request_time(statistics, evidence.request_us if evidence else None)),
        ),
    ]


def _plots_of_metrics(run: RecordedRun) -> list[Plot]:
    if not telemetry.has_course(run.courses):
        return []
    each = f", a line for each of {len(run.courses)} servers" if len(run.courses) > 1 else ""
    return [
        Plot(
            "Server's own metrics",
            "How busy its machine's CPUs and GPUs were, and below it the requests that waited in Triton's "
            f"queue; read once a second{each}.",
            Markup(telemetry.course(run.courses)),
        )
    ]


def _bottleneck(run: RecordedRun) -> dict[str, Any] | None:
    evidence = run.evidence
    if evidence is None:
        return None
    found = bottleneck.find(evidence)
    return {
        "bound": found.bound.value,
        "meaning": _MEANING_OF_BOUND[found.bound],
        "picture": Markup(activity.shares(found)),
        "reasons": [_sentence(reason) for reason in found.reasons],
    }


def _accuracy(run: RecordedRun) -> dict[str, Any] | None:
    found = run.result.accuracy
    if found is None:
        return None
    right = f"{found.good:,} of {found.total:,} samples are right" if found.good is not None else ""
    right = right or f"Over {found.total:,} samples"
    threshold = found.threshold
    wanted = "nothing is prescribed" if threshold is None else f"{threshold:.2%} must be reached"
    return {
        "metric": found.metric,
        "value": f"{found.value:.2%}",
        "meaning": f"{right}, against the {found.truth}; {wanted}.",
        "picture": Markup(activity.target(found.value, threshold)),
        "figures": [
            (name, "no such object" if value < 0 else f"{value:.2%}") for name, value in found.figures.items()
        ],
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""

"""A run's page: what is on it, in which words."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.answers import boxes
from harness.answers.accuracy import Accuracy
from harness.models import MODELS
from harness.report import facts, headline, links, pictures, plots
from harness.report.charts import activity
from harness.report.charts import load as load_chart
from harness.report.facts import Line
from harness.run.mlperf.figures import counted
from harness.run.results import balance, bottleneck
from harness.run.results.bottleneck import Bound
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import Kind

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_MEANING_OF_BOUND = {
    Bound.SERVER: "A request spends most of its life in Triton: a faster model, more cores or other batches "
    "help.",
    Bound.CLIENT: "The client's CPU is the limit: more --client-processes, or shared memory, help.",
    Bound.TRANSPORT: "Neither Triton nor the client works for most of a request's life: gRPC, the kernel and "
    "waiting for a core do.",
}


def _breakable(name: str) -> Markup:
    """A name or path that may be cut after each underscore and slash where it is too long for its line.

    A list without spaces may be after its commas, but not after a slash, as in `scale=1/255,order=RGB`.
    """
    ends = "_," if re.search(r",\S", name) else "_/"
    return Markup("<wbr>").join(re.split(rf"(?<=[{ends}])(?=[^{ends}\s])", name))


def _options_whole(text: str) -> Markup:
    """Words whose options are not cut after their hyphens."""
    parts = re.split(r"(--[a-z][a-z-]*)", text)
    option = Markup('<span class="option">{}</span>')
    return Markup("").join(option.format(part) if part.startswith("--") else part for part in parts)


_TEMPLATES.filters["counted"] = counted
_TEMPLATES.filters["breakable"] = _breakable
_TEMPLATES.filters["options_whole"] = _options_whole


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
        "title": f"{model} on {result.platform}, {result.scenario}: {result.word}",
        "model": model,
        "platform": result.platform + (f" ({result.precision})" if result.precision else ""),
        "scenario": result.scenario.value,
        "time": time.strftime("%-d %B %Y, %H:%M UTC", time.gmtime(result.time)),
        "time_iso": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(result.time)),
        "verdict": result.word,
        "is_bad": bool(result.exit_code),
        "headline": headline.of_run(run),
        "headline_missing": headline.missing(run),
        "reasons": _reasons(run),
        "doubts": [_sentence(doubt) for doubt in result.doubts],
        "is_official": result.is_official,
        "is_short": result.kind == Kind.QUICK,
        "round": run.rules.round or "?",
        "deviations": _sentence("; ".join(result.deviations)),
        "strip": headline.strip(run),
        "notes": headline.notes(run),
        "plots": plots.of_performance(run),
        "plots_of_server": plots.of_server(run),
        "bottleneck": _bottleneck(run),
        "servers": balance.parts(run.result.test.shares),
        "balance": _sentence(balance.line(run.result.test.shares)),
        "accuracy": _accuracy(run),
        "pictures": pictures.embedded(result.folder),
        "min_score": boxes.MIN_SCORE,
        "most_boxes": boxes.MOST_BOXES,
        **_facts(run),
        **links.content(result),
    }


def _reasons(run: RecordedRun) -> list[str]:
    """Why the verdict is bad; of answers that are wrong, neither bound nor length is the reason."""
    result = run.result
    if not result.is_of_answers:
        return [_sentence(reason) for reason in result.reasons]
    return [_told(result.accuracy)] if result.accuracy and result.exit_code else []


def _disturbances(run: RecordedRun) -> Sequence[str]:
    """What makes its speed doubtful, where it says anything of speed."""
    return () if run.result.is_of_answers else run.result.disturbances


def _facts(run: RecordedRun) -> dict[str, Any]:
    load, clock = run.result.test.load, "and the clock of the fastest core"
    return {
        "name": run.result.name,
        "command": facts.command(run.result.cmdline),
        "settings": [
            _settings("Options", "Option", facts.options(run)),
            _settings("The test", "Setting", facts.of_test(run)),
        ],
        "served_config": facts.served_config(run),
        "machine": facts.machine(run),
        "versions": facts.versions(run),
        "disturbances": [_sentence(one) for one in _disturbances(run)],
        "load": facts.load(run),
        "load_caption": "CPUs in use during the test" + (f", {clock}." if load and load.series.mhz else "."),
        "load_picture": Markup(load_chart.over_time(load)) if load else None,
    }


def _settings(caption: str, head: str, lines: Sequence[Line]) -> dict[str, Any]:
    """A table of what is special about the run, and one of the defaults."""
    return {
        "caption": caption,
        "head": head,
        "set": [one for one in lines if not one.is_default],
        "defaults": [one for one in lines if one.is_default],
    }


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
    return {
        "metric": found.metric,
        "value": f"{found.value:.2%}",
        "meaning": _told(found),
        "picture": Markup(activity.target(found.value, found.threshold)),
        "figures": [
            (name, "no such object" if value < 0 else f"{value:.2%}") for name, value in found.figures.items()
        ],
    }


def _told(found: Accuracy) -> str:
    """What was right, and what must be."""
    samples, are = counted(found.total, "sample"), "is" if found.total == 1 else "are"
    right = f"Over {samples}" if found.good is None else f"{found.good:,} of {samples} {are} right"
    threshold = found.threshold
    wanted = "nothing is prescribed" if threshold is None else f"{threshold:.2%} must be reached"
    return f"{right}, against the {found.truth}; {wanted}."


def _sentence(text: str) -> str:
    """The same with a capital letter and an end, which what is shown elsewhere in a line has not."""
    end = "" if text.endswith((".", "!", "?")) else "."
    return f"{text[:1].upper()}{text[1:]}{end}" if text else ""

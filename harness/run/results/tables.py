"""The summary tables, and the reference's line."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from harness.answers.precision import is_full
from harness.models.platforms import Platform
from harness.run.results import balance
from harness.run.results.result import ERROR, Kind, Result, Unmeasured, reference_entry

_AS_WIDE_AS_IT_GETS = 1000
_KIND = {Kind.OFFICIAL: "", Kind.UNOFFICIAL: " (not official)", Kind.QUICK: " (quick run)"}


_QUESTION = "are the answers right?"
_ANSWERS = ("Samples", "Accuracy", "Answers")
"""Columns of --quick: so few queries say nothing of speed."""


def reference_line(result: Result) -> str:
    """The line that the reference prints per scenario, in its shape, since tools read it."""
    entry = reference_entry(result)
    parts = [
        f"{name}={entry[name]:{form}}"
        for name, form in (("qps", ".2f"), ("mean", ".4f"), ("took", ".3f"))
        if entry.get(name) is not None
    ]
    parts = [part.replace("took=", "time=") for part in parts]
    parts += [
        f"{word}={entry[name]:.3f}%" for name, word in (("accuracy", "acc"), ("mAP", "mAP")) if name in entry
    ]
    if entry.get("count") is not None:
        parts.append(f"queries={entry['count']}")
    tiles = ",".join(f"{name}:{value:.4f}" for name, value in entry.get("percentiles", {}).items())
    return f"TestScenario.{result.label} {', '.join(parts)}{', tiles=' + tiles if tiles else ''}"


def print_table(collected: Sequence[Result]) -> None:
    """Print one row per result, then why those that are not valid are not; fits 80 columns."""
    console = wide_console()
    first = collected[0]
    columns = ("MLPerf metric", "p50 ms", "p90 ms", "p99 ms", "Accuracy", "Result")
    table = _table("Scenario", *(_ANSWERS if first.is_quick else columns))
    table.title = f"{first.model} on {_platform(first)}"
    table.title += f": {_QUESTION}" if first.is_quick else _KIND[first.kind]
    for result in collected:
        table.add_row(*(_answers(result) if first.is_quick else _cells(result, 50, 90, 99)))
    console.print(table)
    for line in _notes(collected, is_sweep=False):
        console.print(line, markup=False)


def print_sweep(collected: Sequence[Result | Unmeasured]) -> None:
    """Print one row per result and per model that could not be run, then why; fits 100 columns."""
    console = wide_console()
    is_quick = any(row.is_quick for row in collected if isinstance(row, Result))
    columns = _ANSWERS if is_quick else ("MLPerf metric", "p50 ms", "Accuracy", "Result")
    table = _table("Model", "Platform", "Scenario", *columns)
    table.title = _QUESTION.capitalize() if is_quick else None
    for row in collected:
        if isinstance(row, Result):
            cells = _answers(row) if is_quick else _cells(row, 50)
        else:
            cells = (*("-" for _ in columns), ERROR)
        platform = _platform(row) if isinstance(row, Result) else row.platform
        table.add_row(row.model, platform, *cells)
    console.print(table)
    for row in collected:
        if isinstance(row, Unmeasured):
            console.print(f"{row.model} on {row.platform} {ERROR}: {row.error}", markup=False)
    for line in _notes([row for row in collected if isinstance(row, Result)], is_sweep=True):
        console.print(line, markup=False)


def wide_console() -> Console:
    """Where a terminal is narrow, or names are long, rows are as wide as they are, rather than cut short."""
    return Console(highlight=False, soft_wrap=True, width=_AS_WIDE_AS_IT_GETS)


def _platform(result: Result) -> str:
    """The platform, and its precision where that is not the file's own fp32."""
    return result.platform if is_full(result.precision) else f"{result.platform} ({result.precision})"


def _is_reduced(result: Result) -> bool:
    """Whether the framework chose fewer bits than the file's."""
    return not is_full(result.precision) and Platform(result.platform).facts.chooses_precision


def _table(*columns: str) -> Table:
    """An empty table with words to the left and figures to the right."""
    table = Table(title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    for name in columns:
        is_word = name in ("Model", "Platform", "Scenario", "Result", "Answers")
        table.add_column(name, justify="left" if is_word else "right", no_wrap=True)
    return table


def _cells(result: Result, *percentiles: float) -> tuple[str, ...]:
    """Scenario, metric, latency percentiles, accuracy and verdict."""
    origin = "ended early" if result.is_cut else result.rate_origin
    return (
        result.label + (f", {origin}" if origin else ""),
        f"{_figure(result.metric.value)} {result.metric.unit}" if result.metric else "-",
        *(_cell(result.percentiles_ms.get(level)) for level in percentiles),
        f"{result.accuracy.value:.2%}" if result.accuracy else "-",
        result.verdict,
    )


def _answers(result: Result) -> tuple[str, ...]:
    """Scenario, samples, accuracy, and whether that is right."""
    accuracy = result.accuracy
    found = (str(accuracy.total), f"{accuracy.value:.2%}") if accuracy else ("-", "-")
    return (result.label, *found, result.word)


def _notes(collected: Sequence[Result], *, is_sweep: bool) -> list[str]:
    """What the figures mean, and what is wrong with which."""
    if not collected:
        return []
    return [
        *_meanings(collected, is_sweep=is_sweep),
        *_faults(collected, is_sweep=is_sweep),
        f"Results, and report.html in each: {collected[0].folder.parent}",
    ]


def _meanings(collected: Sequence[Result], *, is_sweep: bool) -> Iterator[str]:
    for result in collected:
        if result.rate_note and not (is_sweep or result.is_quick):
            yield f"{result.label}: {result.rate_note}."
    for result in collected:
        if found := balance.line(result.test.shares):
            yield f"{_whose(result, is_sweep=is_sweep)}, {found}."
    yield from dict.fromkeys(
        f"Precision: {result.precision}, on {result.platform}"
        + ("; --precision fp32 asks for the file's own." if _is_reduced(result) else ".")
        for result in collected
        if result.precision
    )
    yield from dict.fromkeys(
        f"Accuracy: {accuracy.metric} on {accuracy.total} samples, against the {accuracy.truth}."
        for result in collected
        if (accuracy := result.accuracy)
    )


def _faults(collected: Sequence[Result], *, is_sweep: bool) -> Iterator[str]:
    for result in collected:
        for why in result.reasons if result.exit_code or not result.is_quick else ():
            yield f"{_whose(result, is_sweep=is_sweep)} {result.word}: {why}"
    for result in collected:
        if result.disturbances and not result.is_quick:
            disturbed = "; ".join(result.disturbances)
            yield f"{_whose(result, is_sweep=is_sweep)} on a busy machine: {disturbed}."
    for result in collected:
        if (joules := result.test.energy_per_sample_j) is not None:
            yield f"{_whose(result, is_sweep=is_sweep)}: {joules:.3g} J a sample, of all the servers' GPUs."
    yield from dict.fromkeys(
        (f"{result.model} on {result.platform}: " if is_sweep else "") + f"Doubtful: {doubt}"
        for result in collected
        for doubt in result.doubts
    )
    yield from dict.fromkeys(
        f"Settings of {result.server.entry}: {result.server.whose_settings}."
        for result in collected
        if result.server.not_applied or not result.server.is_config_ours
    )
    if deviations := dict.fromkeys(reason for result in collected for reason in result.deviations):
        yield f"Not an official MLPerf result: {'; '.join(deviations)}."
    if collected[0].is_quick:
        yield "--quick: exit 0 means all answers came and are right; so few queries show no speed."


def _whose(result: Result, *, is_sweep: bool) -> str:
    """`Offline`; in a sweep `resnet50 on tflite, Offline`."""
    return f"{result.model} on {result.platform}, {result.label}" if is_sweep else result.label


def _cell(value: float | None) -> str:
    return "-" if value is None else _figure(value)


def _figure(value: float) -> str:
    """Two decimals where they mean something."""
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"

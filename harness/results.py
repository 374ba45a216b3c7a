"""The result of one scenario: results.json, the reference's output line, and the summary table."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.answers.accuracy import Accuracy
from harness.answers.precision import is_full
from harness.errors import EXIT_INVALID, EXIT_SERVER, EXIT_VALID, HarnessError
from harness.job import Outcome
from harness.loadgen import DetailLog, Mode
from harness.machine import files
from harness.rounds import Scenario
from harness.verdict import Metric

VALID, INVALID, FAILED, ERROR = "VALID", "INVALID", "FAILED", "ERROR"

_AS_WIDE_AS_IT_GETS = 1000

PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
"""Those that LoadGen logs."""


@dataclass(frozen=True)
class Result:
    """One scenario of one model on one server."""

    model: str
    platform: str
    scenario: Scenario
    folder: Path
    is_official: bool
    is_quick: bool
    """Whether only the answers were asked for (--quick), and no valid performance result."""
    deviations: tuple[str, ...]
    """Why this is not an official run; empty for one that is."""
    reasons: tuple[str, ...]
    """Why it is INVALID or FAILED; empty for a valid one."""
    is_failed: bool
    """The server or an inference failed, as opposed to a limit that was not met."""
    metric: Metric | None
    accuracy: Accuracy | None
    performance_log: DetailLog | None
    outcomes: dict[Mode, Outcome]
    args: dict[str, Any]
    cmdline: str
    time: int
    """Seconds since the epoch."""
    precision: str | None
    """What the server calculated in, on platforms that have a choice: fp32, bf16, …, or unknown."""
    details: dict[str, Any]
    """Rules, model, data and environment, for results.json."""

    @property
    def verdict(self) -> str:
        """One word for the whole result."""
        if self.is_failed:
            return FAILED
        return INVALID if self.reasons else VALID

    @property
    def label(self) -> str:
        """The scenario; with Server's bound in seconds where it has several, as the reference of 2019 did."""
        bounds = self.args.get("max_latency_s") or ()
        bound_ns = self.performance_log and self.performance_log.number("effective_target_latency_ns")
        if self.scenario != Scenario.SERVER or len(bounds) < 2 or not bound_ns:
            return self.scenario.value
        return f"{self.scenario}-{bound_ns / 1e9:g}"

    @property
    def exit_code(self) -> int:
        """What the process should end with, were this its only result."""
        if self.is_quick and not self.is_failed:
            return EXIT_VALID if self.accuracy is None or self.accuracy.is_met else EXIT_INVALID
        return {FAILED: EXIT_SERVER, INVALID: EXIT_INVALID, VALID: EXIT_VALID}[self.verdict]

    def percentile_ms(self, percentile: str) -> float | None:
        """A latency percentile of queries, from LoadGen's log."""
        if self.performance_log is None:
            return None
        value = self.performance_log.latency_ns(f"{percentile}_percentile")
        return value / 1e6 if value is not None else None


@dataclass(frozen=True)
class Unmeasured:
    """A model that could not be run, or not to the end."""

    model: str
    platform: str
    error: HarnessError

    @property
    def exit_code(self) -> int:
        """What the process should end with, were this its only result."""
        return self.error.exit_code


def reference_entry(result: Result) -> dict[str, Any]:
    """The reference's keys of one scenario, each figure from LoadGen's detail log; times in seconds."""
    entry: dict[str, Any] = {}
    log = result.performance_log
    if log is not None:
        mean = log.latency_ns("mean")
        count = log.number("result_query_count")
        took = next(o.test_s for mode, o in result.outcomes.items() if mode != Mode.ACCURACY)
        if result.scenario == Scenario.OFFLINE:
            count = log.number("effective_samples_per_query") or count
            took = (log.number("result_max_latency_ns") or 0) / 1e9
        entry = {
            "took": took,
            "mean": mean / 1e9 if mean is not None else None,
            "percentiles": {
                f"{float(name):.1f}": value / 1e3
                for name in PERCENTILES
                if (value := result.percentile_ms(name)) is not None
            },
            "qps": _rate(result, log),
            "count": int(count) if count is not None else None,
        }
    if result.accuracy is not None:
        entry["total_items"] = result.accuracy.total
        if result.accuracy.good is None:
            entry["mAP"] = 100.0 * result.accuracy.value
        else:
            entry["good_items"] = result.accuracy.good
            entry["accuracy"] = 100.0 * result.accuracy.value
    return entry


def _rate(result: Result, log: DetailLog) -> float | None:
    """Samples (MultiStream: queries) per second."""
    keys = {
        Scenario.SINGLE_STREAM: "result_qps_with_loadgen_overhead",
        Scenario.SERVER: "result_completed_samples_per_sec",
        Scenario.OFFLINE: "result_samples_per_second",
    }
    if result.scenario in keys:
        return log.number(keys[result.scenario])
    mean = log.latency_ns("mean")
    return 1e9 / mean if mean else None


def log_dir(folder: Path, mode: Mode) -> Path:
    """Where LoadGen's logs of a test are: the submission checker's own sub-folders."""
    return folder / ("accuracy" if mode == Mode.ACCURACY else "performance/run_1")


def write(result: Result, server_details: dict[str, Any]) -> Path:
    """Write results.json into the result's folder: the reference's keys first, then ours.

    Raises:
        ConfigError: it cannot be written.
    """
    path = result.folder / "results.json"
    document = {
        "runtime": "triton",
        "version": server_details["version"],
        "time": result.time,
        "args": result.args,
        "cmdline": result.cmdline,
        f"TestScenario.{result.scenario}": reference_entry(result),
        "model": result.model,
        "platform": result.platform,
        "precision": result.precision,
        "scenario": result.scenario.value,
        "kind": "official" if result.is_official else "quick",
        "deviations": list(result.deviations),
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "metric": dataclasses.asdict(result.metric) if result.metric else None,
        "accuracy": _accuracy(result.accuracy),
        "tests": {mode.value: _outcome(outcome) for mode, outcome in result.outcomes.items()},
        "server": server_details,
        **result.details,
    }
    files.write(path, json.dumps(document, indent=2) + "\n")
    return path


def _accuracy(accuracy: Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    return {**dataclasses.asdict(accuracy), "is_met": accuracy.is_met}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    details = dataclasses.asdict(outcome)
    if outcome.statistics:
        details["statistics"]["mean_batch_size"] = outcome.statistics.mean_batch_size
    return details


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


def is_shortened(args: Mapping[str, Any]) -> bool:
    """Whether less was asked for, in results.json's `args`, than the round wants."""
    return any(args.get(name) for name in ("time_s", "count", "is_quick"))


def print_table(collected: Sequence[Result]) -> None:
    """Print one row per result, then why those that are not valid are not; fits 80 columns."""
    console = Console(highlight=False, soft_wrap=True)
    first = collected[0]
    kind = "" if first.is_official else " (quick run)" if is_shortened(first.args) else " (not official)"
    table = _table("Scenario", "MLPerf metric", "p50 ms", "p90 ms", "p99 ms", "Accuracy", "Result")
    table.title = f"{first.model} on {_platform(first)}{kind}"
    for result in collected:
        table.add_row(*_cells(result, "50.00", "90.00", "99.00"))
    console.print(table)
    for line in _notes(collected, is_sweep=False):
        console.print(line, markup=False)


def print_sweep(collected: Sequence[Result | Unmeasured]) -> None:
    """Print one row per result and per model that could not be run, then why; fits 100 columns."""
    # Wider than the terminal, where names are long, rather than cut short.
    console = Console(highlight=False, soft_wrap=True, width=_AS_WIDE_AS_IT_GETS)
    table = _table("Model", "Platform", "Scenario", "MLPerf metric", "p50 ms", "Accuracy", "Result")
    for row in collected:
        cells = _cells(row, "50.00") if isinstance(row, Result) else ("-", "-", "-", "-", ERROR)
        platform = _platform(row) if isinstance(row, Result) else row.platform
        table.add_row(row.model, platform, *cells)
    console.print(table)
    for row in collected:
        if isinstance(row, Unmeasured):
            console.print(f"{row.model} on {row.platform} {ERROR}: {row.error}", markup=False)
    for line in _notes([row for row in collected if isinstance(row, Result)], is_sweep=True):
        console.print(line, markup=False)


def _platform(result: Result) -> str:
    """The platform, and its precision where that is not the file's own fp32."""
    return result.platform if is_full(result.precision) else f"{result.platform} ({result.precision})"


def _table(*columns: str) -> Table:
    """An empty table with words to the left and figures to the right."""
    table = Table(title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    for name in columns:
        is_word = name in ("Model", "Platform", "Scenario", "Result")
        table.add_column(name, justify="left" if is_word else "right", no_wrap=True)
    return table


def _cells(result: Result, *percentiles: str) -> tuple[str, ...]:
    """Scenario, metric, latency percentiles, accuracy and verdict."""
    return (
        result.label,
        f"{_figure(result.metric.value)} {result.metric.unit}" if result.metric else "-",
        *(_cell(result.percentile_ms(name)) for name in percentiles),
        f"{result.accuracy.value:.2%}" if result.accuracy else "-",
        result.verdict,
    )


def _notes(collected: Sequence[Result], *, is_sweep: bool) -> list[str]:
    """What the figures mean, and what is wrong with which."""
    if not collected:
        return []
    notes = [
        (f"{result.model} on {result.platform}, " if is_sweep else "")
        + f"{result.label} {result.verdict}: {why}"
        for result in collected
        if result.exit_code or not result.is_quick
        for why in result.reasons
    ]
    accuracies = dict.fromkeys(
        f"Accuracy: {accuracy.metric} on {accuracy.total} samples, against the {accuracy.truth}."
        for result in collected
        if (accuracy := result.accuracy)
    )
    precisions = dict.fromkeys(
        f"Precision: {result.precision}, on {result.platform}"
        + ("." if is_full(result.precision) else "; --precision fp32 asks for the file's own.")
        for result in collected
        if result.precision
    )
    deviations = dict.fromkeys(reason for result in collected for reason in result.deviations)
    if deviations:
        notes.append(f"Not an official MLPerf result: {'; '.join(deviations)}.")
    if collected[0].is_quick:
        notes.append(
            "--quick: exit 0 means all answers came and are right, whatever LoadGen says of so few queries."
        )
    return [
        *precisions,
        *accuracies,
        *notes,
        f"Results, and report.html in each: {collected[0].folder.parent}",
    ]


def _cell(value: float | None) -> str:
    return "-" if value is None else _figure(value)


def _figure(value: float) -> str:
    """Two decimals where they mean something."""
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"

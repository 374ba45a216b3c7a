"""The result of one scenario: results.json, the reference's output line, and the summary table."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.accuracy import Accuracy
from harness.errors import EXIT_INVALID, EXIT_SERVER, EXIT_VALID
from harness.job import Outcome
from harness.loadgen import DetailLog, Mode
from harness.precision import is_full
from harness.rounds import Scenario
from harness.verdict import Metric

VALID, INVALID, FAILED = "VALID", "INVALID", "FAILED"

_SWEEP_WIDTH = 120

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
    def exit_code(self) -> int:
        """What the process should end with, were this its only result."""
        if self.is_quick and not self.is_failed:
            return EXIT_VALID if self.accuracy is None or self.accuracy.is_met else EXIT_INVALID
        return {FAILED: EXIT_SERVER, INVALID: EXIT_INVALID, VALID: EXIT_VALID}[self.verdict]

    def percentile_ms(self, percentile: str) -> float | None:
        """A latency percentile from LoadGen's log; MultiStream's are of whole queries."""
        if self.performance_log is None:
            return None
        value = self.performance_log.number(f"result_{percentile}_percentile_latency_ns")
        return value / 1e6 if value is not None else None


def reference_entry(result: Result) -> dict[str, Any]:
    """The reference's keys of one scenario, each figure from LoadGen's detail log; times in seconds."""
    entry: dict[str, Any] = {}
    log = result.performance_log
    if log is not None:
        mean = log.number("result_mean_latency_ns")
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
    mean = log.number("result_mean_latency_ns")
    return 1e9 / mean if mean else None


def log_dir(folder: Path, mode: Mode) -> Path:
    """Where LoadGen's logs of a test are: the submission checker's own sub-folders."""
    return folder / ("accuracy" if mode == Mode.ACCURACY else "performance/run_1")


def write(result: Result, server_details: dict[str, Any]) -> Path:
    """Write results.json into the result's folder: the reference's keys first, then ours."""
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
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.rename(path)
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
    return f"TestScenario.{result.scenario} {', '.join(parts)}{', tiles=' + tiles if tiles else ''}"


def print_table(collected: Sequence[Result]) -> None:
    """Print one row per result, then why those that are not valid are not; fits 80 columns."""
    console = Console(highlight=False, soft_wrap=True)
    first = collected[0]
    kind = "" if first.is_official else " (quick run)"
    table = Table(
        title=f"{first.model} on {_platform(first)}{kind}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("Scenario", no_wrap=True)
    for name in ("MLPerf metric", "p50 ms", "p90 ms", "p99 ms", "Accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Result", no_wrap=True)
    for result in collected:
        table.add_row(
            result.scenario.value,
            f"{_figure(result.metric.value)} {result.metric.unit}" if result.metric else "-",
            *(_cell(result.percentile_ms(name)) for name in ("50.00", "90.00", "99.00")),
            f"{result.accuracy.value:.2%}" if result.accuracy else "-",
            result.verdict,
        )
    console.print(table)
    for line in _notes(collected):
        console.print(line, markup=False)


def print_sweep(collected: Sequence[Result]) -> None:
    """Print one row per model and platform: in each scenario a figure and the accuracy."""
    console = Console(highlight=False, soft_wrap=True)
    # Wider than a terminal of 80 columns, rather than figures cut short.
    console.width = max(console.width, _SWEEP_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("Model", "Platform", *Scenario):
        table.add_column(name, no_wrap=True, justify="left" if name[0] in "MP" else "right")
    pairs = dict.fromkeys((result.model, _platform(result)) for result in collected)
    for pair in pairs:
        of_pair = {
            result.scenario: _sweep_cell(result)
            for result in collected
            if (result.model, _platform(result)) == pair
        }
        table.add_row(*pair, *(of_pair.get(scenario, "-") for scenario in Scenario))
    console.print(table)
    console.print("Median latency in ms (MultiStream: of a query; Offline: samples/s), then the accuracy.")
    for line in _notes(collected):
        console.print(line, markup=False)


def _platform(result: Result) -> str:
    """The platform, and its precision where that is not the file's own fp32."""
    return result.platform if is_full(result.precision) else f"{result.platform} ({result.precision})"


def _sweep_cell(result: Result) -> str:
    if result.is_failed:
        return FAILED
    is_offline = result.scenario == Scenario.OFFLINE
    figure = result.metric.value if is_offline and result.metric else result.percentile_ms("50.00")
    accuracy = f" {result.accuracy.value:.2%}" if result.accuracy else ""
    return f"{_cell(figure)}{accuracy}"


def _notes(collected: Sequence[Result]) -> list[str]:
    """What the figures mean, and what is wrong with which."""
    is_sweep = len({(result.model, result.platform) for result in collected}) > 1
    notes = [
        (f"{result.model} on {result.platform}, " if is_sweep else "")
        + f"{result.scenario} {result.verdict}: {why}"
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
        notes.append("A --quick run: too few queries for LoadGen's statistics, so no performance result.")
    return [*precisions, *accuracies, *notes, f"Results: {collected[0].folder.parent}"]


def _cell(value: float | None) -> str:
    return "-" if value is None else _figure(value)


def _figure(value: float) -> str:
    """Two decimals where they mean something."""
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"

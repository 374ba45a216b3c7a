"""The result of one scenario; results.json; --output FILE.json."""

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
from harness.run.worker.job import Outcome
from harness.run.mlperf import figures
from harness.run.mlperf.logs import DetailLog
from harness.run.mlperf.plan import Mode
from harness.machine import files
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.verdict import Metric

VALID, INVALID, FAILED, ERROR = "VALID", "INVALID", "FAILED", "ERROR"

_COMMON = ("runtime", "version", "time", "args", "cmdline")
"""Keys of the reference that are not of one scenario."""


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

    def percentile_ms(self, percentile: float) -> float | None:
        """A latency percentile of queries, from LoadGen's log."""
        return figures.percentile_ms(self.performance_log, percentile) if self.performance_log else None


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
                f"{level:.1f}": value / 1e3
                for level in figures.PERCENTILES
                if (value := result.percentile_ms(level)) is not None
            },
            "qps": figures.rate(log, result.scenario),
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


def test_folder(folder: Path, mode: Mode) -> Path:
    """Where LoadGen's logs of a test are: the submission checker's own sub-folders."""
    return folder / ("accuracy" if mode == Mode.ACCURACY else "performance/run_1")


def write_result(result: Result, server_details: dict[str, Any]) -> Path:
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


def write_all(file: Path, bounds_s: Sequence[float], results: Sequence[Result]) -> None:
    """Write --output FILE.json: all scenarios of an invocation, in the shape of the reference's file.

    Called again after each scenario, so that an interrupted invocation leaves what it measured.

    Args:
        file: where to.
        bounds_s: Server's latency bounds that were asked for.
        results: what was measured so far; each has its own results.json.

    Raises:
        ConfigError: it cannot be written.
    """
    merged: dict[str, Any] = {}
    bounds = iter(bounds_s if len(bounds_s) > 1 else ())
    for result in results:
        document = json.loads((result.folder / "results.json").read_text(encoding="utf-8"))
        for key in _COMMON:
            merged.setdefault(key, document[key])
        key = f"TestScenario.{result.scenario}"
        entry = {**document[key], "verdict": result.verdict, "folder": str(result.folder)}
        # Several bounds are told apart as the reference of 2019 did, which took a list of them.
        bound = next(bounds, None) if result.scenario == Scenario.SERVER else None
        merged[key if bound is None else f"{key}-{bound:g}"] = entry
    files.write(file, json.dumps(merged, indent=2) + "\n")

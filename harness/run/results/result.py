"""The result of one scenario; results.json; --output FILE.json."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from harness.answers.accuracy import Accuracy
from harness.errors import EXIT_INVALID, EXIT_SERVER, EXIT_VALID, HarnessError
from harness.machine import files
from harness.machine.environment import Environment
from harness.machine.from_json import from_json
from harness.run.mlperf import figures
from harness.run.mlperf.logs import DetailLog
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rate_search import Search
from harness.run.mlperf.rounds import Scenario
from harness.run.mlperf.verdict import Metric
from harness.run.worker.job import Outcome
from harness.run.worker.timeline import Recorded, query_latencies_us
from harness.triton.rpc import Rpc

RESULTS_NAME = "results.json"
SEARCH_FOLDER = "search"
"""For LoadGen's logs of the tests in which Server's rate was looked for, by their number."""
ERROR = "ERROR"
"""Instead of a verdict, where there is no result."""

_COMMON = ("runtime", "version", "time", "args", "cmdline")
"""Keys of the reference that are not of one scenario."""


class Verdict(StrEnum):
    """One word for a whole result."""

    VALID = "VALID"
    INVALID = "INVALID"
    """A limit was not met."""
    FAILED = "FAILED"
    """The server or an inference failed."""


class RateOrigin(StrEnum):
    """Where Server's rate comes from."""

    OFFERED = "offered"
    """Given; a higher one may keep the bound too."""
    FOUND = "found"
    """The highest that keeps the bound, by a search and a test of full length."""
    TRIED = "tried"
    """Neither given nor confirmed."""


class Kind(StrEnum):
    """Whether it is a run by MLPerf's rules."""

    OFFICIAL = "official"
    UNOFFICIAL = "unofficial"
    """Of full length, but not by all rules."""
    QUICK = "quick"
    """Shortened."""


_TOO_LATE = 1 << 40
_ONLY_THE_REFERENCES = 80
"""Percentile of latency."""
_EXIT_CODE = {
    Verdict.VALID: EXIT_VALID,
    Verdict.INVALID: EXIT_INVALID,
    Verdict.FAILED: EXIT_SERVER,
}


@dataclass(frozen=True)
class Figures:
    """The reference's figures of a test; times in seconds.

    Of a performance test each is from LoadGen's detail log. LoadGen logs none in accuracy mode, nor of a test
    that it does not get to the end of: there they are from our own timeline, which counts from when a query
    was issued instead of when it was due.
    """

    took: float | None = None
    mean: float | None = None
    """Latency of a query."""
    percentiles: Mapping[float, float] = field(default_factory=dict)
    """Latency of queries, by percentile."""
    qps: float | None = None
    """Samples (MultiStream: queries) per second."""
    count: int | None = None
    """Queries; of Offline, samples."""

    @classmethod
    def of(cls, log: DetailLog, scenario: Scenario, test_s: float) -> "Figures":
        """What a log has of a test that took so long."""
        mean = log.latency_ns("mean")
        count, took = log.number("result_query_count"), test_s
        if scenario == Scenario.OFFLINE:
            count = log.number("effective_samples_per_query") or count
            took = (log.number("result_max_latency_ns") or 0) / 1e9
        return cls(
            took=took,
            mean=mean / 1e9 if mean is not None else None,
            percentiles={
                float(level): value / 1e3
                for level in figures.PERCENTILES
                if (value := figures.percentile_ms(log, level)) is not None
            },
            qps=figures.rate(log, scenario),
            count=int(count) if count is not None else None,
        )

    @classmethod
    def of_timeline(cls, recorded: Recorded, scenario: Scenario, took_s: float) -> "Figures":
        """The same of a test without LoadGen's figures, and the 80th percentile, which LoadGen never logs."""
        latencies_us, times = query_latencies_us(recorded, scenario)
        latencies_s = np.repeat(latencies_us, times) / 1e6
        if not len(latencies_s):
            return cls(took=took_s, count=0)
        levels = sorted((*figures.PERCENTILES, _ONLY_THE_REFERENCES))
        found = np.percentile(latencies_s, levels, method="higher")
        return cls(
            took=took_s,
            mean=float(latencies_s.mean()),
            percentiles=dict(zip(map(float, levels), found.tolist(), strict=True)),
            qps=len(latencies_s) / took_s if took_s else None,
            count=len(latencies_s),
        )


@dataclass(frozen=True)
class Server:
    """Who answered, and how server and client were set up for it."""

    version: str | None = None
    urls: tuple[str, ...] = ()
    rpc: Rpc | None = None
    """Who carried the requests (`harness.triton.rpc`)."""
    entry: str = ""
    """What the model is called there, and its version if one was asked for: `name/version`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Triton's own, of the model, as it was served."""
    is_config_ours: bool = True
    """Whether it was chosen for this run; else it is the server's own."""
    not_applied: tuple[str, ...] = ()
    """Options that another configuration than that of this run left without effect, as they were typed."""
    is_on_this_machine: bool | None = None
    """Whether every one was seen to be where the client was; None in results that do not tell."""
    client_processes: int = 1
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """`run.config.tuning.Tuning`, with the server's settings as they were live."""

    @property
    def whose_settings(self) -> str:
        """Who decided on instances, batches and the like, and what was asked for in vain."""
        whose = "this run's" if self.is_config_ours else "the server's own"
        return whose + (f"; not applied: {', '.join(self.not_applied)}" if self.not_applied else "")


@dataclass(frozen=True)
class DataSet:
    """The samples."""

    name: str | None = None
    samples: int | None = None
    fingerprint: str | None = None
    is_complete: bool | None = None


@dataclass(frozen=True)
class Setting:
    """One setting, as it was resolved."""

    name: str
    value: Any
    origin: str
    of: str = ""
    """`request`: an option; `test`: what the request came to. Empty in results that did not tell yet."""
    is_given: bool | None = None
    """Whether the user chose it, in whatever way; None in results that do not tell."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scenario of one model on one server: results.json, but for `folder`.

    What results of earlier versions may lack has a default. Parts that other modules declare and may change
    are plain JSON here.
    """

    model: str
    platform: str
    precision: str | None = None
    """What the server calculated in, on platforms that have a choice: fp32, bf16, …, or unknown."""
    scenario: Scenario
    kind: Kind
    deviations: tuple[str, ...]
    """Why this is not an official run; empty for one that is."""
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why it is INVALID or FAILED; empty for a valid one."""
    doubts: tuple[str, ...] = ()
    """What looks like a misunderstanding, and its remedy; they change no verdict."""
    metric: Metric | None = None
    accuracy: Accuracy | None = None
    tests: Mapping[Mode, Outcome]
    """Those that were started."""
    server: Server
    rules: Mapping[str, Any] = field(default_factory=dict)
    """`run.mlperf.rounds.Rules`."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """MANIFEST.json of the entry."""
    dataset: DataSet = DataSet()
    loadgen: str | None = None
    """Its version."""
    environment: Environment = field(default_factory=Environment)
    settings: tuple[Setting, ...] = ()
    args: Mapping[str, Any]
    """The request: `RunConfig.to_json`."""
    cmdline: str
    time: int
    """Seconds since the epoch."""
    figures: Figures | None = None
    """None where no performance test came to its end."""
    accuracy_figures: Figures | None = None
    """Of the accuracy test where it is the only one; all else that is told of speed is of performance."""
    search: Search | None = None
    """How Server's rate was looked for; None where it was not."""
    rate_origin: RateOrigin | None = None
    """Of a performance test of Server; results of earlier versions do not tell."""
    invocation: str = ""
    """The command that it is a result of, as others of that command have it; empty in earlier versions."""
    others_before: float | None = None
    """CPUs that other processes used while the run was prepared (`tests.….load`: during a test); None: not
    known."""
    folder: Path = Path()
    """Where it is."""

    def __post_init__(self) -> None:
        """Reject a time that no calendar has."""
        if not 0 <= self.time < _TOO_LATE:
            raise ValueError(f"time cannot be {self.time}")

    @property
    def is_valid(self) -> bool:
        """Whether its figures count."""
        return self.verdict == Verdict.VALID

    @property
    def is_official(self) -> bool:
        """Whether it is a run by MLPerf's rules."""
        return self.kind == Kind.OFFICIAL

    @property
    def is_quick(self) -> bool:
        """Whether only the answers were asked for (--quick), and no valid performance result."""
        return bool(self.args.get("is_quick"))

    @property
    def is_of_answers(self) -> bool:
        """Whether all that it says is if the answers are right: neither bound, length nor speed count."""
        return self.is_quick and self.verdict != Verdict.FAILED

    @property
    def mode(self) -> Mode | None:
        """Of the performance test; None where only accuracy was tested."""
        return next((mode for mode in (Mode.PERFORMANCE, Mode.FIND_PEAK) if mode in self.tests), None)

    @property
    def test(self) -> Outcome:
        """What became of the performance test; an empty one where there was none."""
        return self.tests[self.mode] if self.mode else Outcome()

    @property
    def is_cut(self) -> bool:
        """Whether its Server test was ended early: its figures are of what was answered until then."""
        return self.test.cut_p99_ns > 0

    @property
    def disturbances(self) -> tuple[str, ...]:
        """Why the performance test's figures may not be what the machine does by itself."""
        return self.test.load.disturbances if self.test.load else ()

    @property
    def name(self) -> str:
        """What the user calls the run (--label); empty where they did not say."""
        return str(self.args.get("label") or "")

    @property
    def label(self) -> str:
        """The scenario; with Server's bound in seconds where it has several, as the reference of 2019 did."""
        bounds, plan = self.args.get("max_latency_s") or (), self.test.plan
        if self.scenario != Scenario.SERVER or len(bounds) < 2 or not (plan and self.figures):
            return self.scenario.value
        return f"{self.scenario}-{plan.server_target_latency_ns / 1e9:g}"

    @property
    def rate_note(self) -> str:
        """Where Server's rate comes from, in a sentence without its end; empty where there is none."""
        plan, tests = self.test.plan, len(self.search.probes) if self.search else 0
        if self.rate_origin is None or plan is None:
            return ""
        if self.is_cut:
            return f"{plan.target_qps:.4g} queries/s were offered as asked for, until it was ended early"
        return (
            f"{plan.target_qps:.4g} queries/s "
            + {
                RateOrigin.OFFERED: "were offered as asked for; more may keep the bound too",
                RateOrigin.FOUND: "is the highest rate found that keeps the bound"
                # LoadGen's own search is one test of many rates.
                + ("" if Mode.FIND_PEAK in self.tests else f", in {figures.counted(tests, 'test')}"),
                RateOrigin.TRIED: "were tried; the highest rate was not found"
                + ("" if tests else ", which takes --time"),
            }[self.rate_origin]
        )

    @property
    def exit_code(self) -> int:
        """What the process should end with, were this its only result."""
        if self.is_of_answers:
            return EXIT_VALID if self.accuracy is None or self.accuracy.is_met else EXIT_INVALID
        return _EXIT_CODE[self.verdict]

    @property
    def word(self) -> str:
        """The verdict; with --quick, which asks nothing else, whether the answers are right."""
        if self.is_of_answers:
            return "wrong" if self.exit_code else "right"
        return self.verdict.value

    @property
    def percentiles_ms(self) -> dict[float, float]:
        """LoadGen's latency of queries by percentile (50.0, 99.9); empty where it measured none."""
        return {level: s * 1e3 for level, s in self.figures.percentiles.items()} if self.figures else {}


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
    """The reference's keys of one scenario.

    Its items of a detector are detections; good ones are of a class that their image has.
    """
    figures, accuracy = result.figures or result.accuracy_figures, result.accuracy
    entry = dataclasses.asdict(figures) if figures else {}
    if accuracy is None:
        return entry
    total, good = accuracy.total, accuracy.good
    if accuracy.detections is not None:
        total, good = accuracy.detections, accuracy.good_detections
    entry["total_items"] = total
    if good is not None:
        entry["good_items"] = good
        # As the reference divides: 92.8, not 92.80000000000001. It fails where nothing was found.
        entry["accuracy"] = 100.0 * good / total if total else 0.0
    if accuracy.good is None:
        entry["mAP"] = 100.0 * accuracy.value
    return entry


def test_folder(folder: Path, mode: Mode) -> Path:
    """Where LoadGen's logs of a test are: the submission checker's own sub-folders, and one for searches."""
    of = {
        Mode.ACCURACY: "accuracy",
        Mode.PERFORMANCE: "performance/run_1",
        Mode.FIND_PEAK: f"{SEARCH_FOLDER}/peak",
    }
    return folder / of[mode]


def write_result(result: Result) -> Path:
    """Write results.json into the result's folder.

    Raises:
        ConfigError: it cannot be written.
    """
    path = result.folder / RESULTS_NAME
    files.write(path, json.dumps(to_json(result), indent=2) + "\n")
    return path


def to_json(result: Result) -> dict[str, Any]:
    """results.json: the reference's keys first, then ours, with what follows from others beside them."""
    ours = {**dataclasses.asdict(result), "runtime": "triton", "version": result.server.version}
    del ours["figures"], ours["folder"]
    if result.accuracy:
        ours["accuracy"]["is_met"] = result.accuracy.is_met
    for mode, outcome in result.tests.items():
        if outcome.statistics:
            ours["tests"][mode]["statistics"]["mean_batch_size"] = outcome.statistics.mean_batch_size
        if outcome.energy_per_sample_j is not None:
            ours["tests"][mode]["energy_per_sample_j"] = outcome.energy_per_sample_j
    first = {key: ours.pop(key) for key in _COMMON}
    return {**first, _entry_key(result.scenario): reference_entry(result), **ours}


def read_result(document: Any, folder: Path) -> Result:
    """Take a result from results.json.

    Raises:
        ValueError: the document is none of ours, or is damaged; says where.
    """
    fields = document
    if isinstance(document, dict):
        entry = document.get(_entry_key(document.get("scenario")))
        has_none = isinstance(entry, dict) and "qps" not in entry
        is_of_accuracy_only = has_none or document.get("accuracy_figures") is not None
        fields = {
            **document,
            "figures": None if is_of_accuracy_only else entry,
            "folder": str(folder),
        }
    return from_json(Result, fields, is_strict=False)


def _entry_key(scenario: object) -> str:
    return f"TestScenario.{scenario}"


def write_all(file: Path, bounds_s: Sequence[float], results: Sequence[Result]) -> None:
    """Write --output FILE.json: all scenarios of an invocation, in the shape of the reference's file.

    Called again after each scenario, so that an interrupted invocation leaves what it measured.

    Args:
        file: where to.
        bounds_s: Server's latency bounds that were asked for.
        results: what was measured so far.

    Raises:
        ConfigError: it cannot be written.
    """
    merged: dict[str, Any] = {}
    bounds = iter(bounds_s if len(bounds_s) > 1 else ())
    for result in results:
        document = to_json(result)
        for key in _COMMON:
            merged.setdefault(key, document[key])
        key = _entry_key(result.scenario)
        entry = {**document[key], "verdict": result.verdict, "folder": str(result.folder)}
        # Several bounds are told apart as the reference of 2019 did, which took a list of them.
        bound = next(bounds, None) if result.scenario == Scenario.SERVER else None
        merged[key if bound is None else f"{key}-{bound:g}"] = entry
    files.write(file, json.dumps(merged, indent=2) + "\n")

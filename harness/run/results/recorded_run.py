"""A finished run, read back from its folder: results.json, and the timeline of its requests if it has one."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError, InferenceError
from harness.machine.from_json import from_json
from harness.run.mlperf import logs
from harness.run.mlperf.plan import PERCENTILE, Mode, Plan
from harness.run.mlperf.rate_search import Probe
from harness.run.mlperf.rounds import Scenario
from harness.run.results import batches, bottleneck, peak, punctuality
from harness.run.results.batches import Batches
from harness.run.results.bottleneck import Evidence, Load
from harness.run.results.punctuality import Punctuality
from harness.run.results.result import RESULTS_NAME, Result, read_result, test_folder
from harness.run.telemetry import record
from harness.run.telemetry.record import Course
from harness.run.worker import timeline
from harness.run.worker.timeline import Recorded


@dataclass(frozen=True)
class Rules:
    """What is read of `rules`."""

    round: str | None = None


@dataclass(frozen=True)
class Export:
    """What is read of `manifest`."""

    weights: str | None = None
    weights_sha256: str | None = None
    graph_sha256: str | None = None


@dataclass(frozen=True)
class _Server:
    instances: int = 1


@dataclass(frozen=True)
class _Tuning:
    """What is read of `server.tuning`; 0 where it does not tell."""

    in_flight: int = 0
    server: _Server = _Server()


@dataclass(frozen=True)
class RecordedRun:
    """One results folder."""

    result: Result
    rules: Rules
    export: Export
    evidence: Evidence | None
    """What shows who holds the run back; None where too little is known."""
    recorded: Recorded | None
    """Of the performance test; None where it left no timeline."""
    instances: int = 1
    """Of the model, of all servers; those left to a server count as one."""
    punctuality: Punctuality | None = None
    """Server: its queries against LoadGen's schedule; None where that is not known."""
    peak: tuple[Probe, ...] = ()
    """The tests of LoadGen's own search."""
    courses: tuple[Course, ...] = ()
    """Of the performance test, what the servers' metrics said over its time; the use of CPUs only where
    `load` does not tell it already."""

    @property
    def name(self) -> str:
        """The folder's own."""
        return self.result.folder.name

    @property
    def scenario(self) -> Scenario:
        """LoadGen's."""
        return self.result.scenario

    @property
    def mode(self) -> Mode | None:
        """Of the performance test; None where only accuracy was tested."""
        return self.result.mode

    @property
    def plan(self) -> Plan | None:
        """What LoadGen was told about the performance test; None where that was not started."""
        return self.result.test.plan

    @property
    def ranked_percentile(self) -> float | None:
        """The percentile of latency that decides in this scenario; None in Offline."""
        share = PERCENTILE.get(self.scenario)
        return round(share * 100, 2) if share else None

    @property
    def bound_ms(self) -> float | None:
        """Server: the latency that 99 % of the queries must keep; None also where nobody asks for that."""
        if self.scenario != Scenario.SERVER or not self.plan or self.result.is_of_answers:
            return None
        return self.plan.server_target_latency_ns / 1e6

    @property
    def offered_qps(self) -> float | None:
        """Server: the rate at which LoadGen asked; None in a search, which has many."""
        if self.scenario != Scenario.SERVER or self.mode != Mode.PERFORMANCE or not self.plan:
            return None
        return self.plan.target_qps

    @functools.cached_property
    def latencies_us(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Of the performance test's queries, in order, and how often each counts (`query_latencies_us`).

        Server's are from LoadGen's schedule, where that is known, else from when the client was asked.
        """
        if self.punctuality:
            found = self.punctuality.latencies_us
            return found, np.ones_like(found)
        return timeline.query_latencies_us(self.recorded, self.scenario) if self.recorded else None

    @property
    def tried(self) -> tuple[Probe, ...]:
        """Server: every rate that was tried for the highest, by LoadGen's search, then by ours."""
        return (*self.peak, *(self.result.search.probes if self.result.search else ()))

    @functools.cached_property
    def batches(self) -> Batches | None:
        """Offline: its batches; None where it left no timeline."""
        if self.scenario != Scenario.OFFLINE or not self.recorded:
            return None
        counted = self.result.test.statistics
        return batches.of_test(self.recorded, self.instances, counted.executions if counted else 0)

    @property
    def samples_per_s(self) -> float | None:
        """LoadGen's throughput, whatever the scenario is ranked by."""
        return _samples_per_s(self.result)


def read(path: Path) -> RecordedRun:
    """Read a run.

    Args:
        path: its folder, or the results.json in it.

    Raises:
        ConfigError: it is neither, or what it holds is not a result of this harness.
    """
    file = path if path.is_file() else path / RESULTS_NAME
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} is no finished run: {file}: {error.strerror}; name a folder such as those in results/"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {error}") from error
    try:
        result = read_result(document, file.absolute().parent)
        rules = from_json(Rules, result.rules, is_strict=False)
        export = from_json(Export, result.manifest, is_strict=False)
        tuning = from_json(_Tuning, result.server.tuning, is_strict=False)
    except ValueError as error:
        raise ConfigError(
            f"{file} is not a result of this harness, or of another version: {error}"
        ) from error
    recorded, mean_s = _timeline(result, result.mode), result.figures.mean if result.figures else None
    return RecordedRun(
        *(result, rules, export, _evidence(result, tuning), recorded),
        instances=max(1, tuning.server.instances) * max(1, len(result.server.urls)),
        punctuality=punctuality.of_test(recorded, result.test.plan, mean_s * 1e6 if mean_s else None),
        peak=_peak(result),
        courses=_courses(result),
    )


def _samples_per_s(result: Result) -> float | None:
    if not result.figures or not result.figures.qps:
        return None
    plan = result.test.plan
    is_of_queries = result.scenario == Scenario.MULTI_STREAM
    return result.figures.qps * (plan.samples_per_query if plan and is_of_queries else 1)


def _evidence(result: Result, tuning: _Tuning) -> Evidence | None:
    test, rate = result.test, _samples_per_s(result)
    mean_s = result.figures.mean if result.figures else None
    if test.statistics is None or not rate or not mean_s or result.mode != Mode.PERFORMANCE:
        return None
    servers = len(result.server.urls)
    return bottleneck.evidence_of(
        test.statistics,
        result.scenario,
        Load(
            in_flight=tuning.in_flight * servers,
            instances=tuning.server.instances * servers,
            client_processes=result.server.client_processes,
        ),
        samples_per_s=rate,
        mean_latency_ns=mean_s * 1e9,
        client_cpu_s=test.client_cpu_s,
        test_s=test.test_s,
    )


def _timeline(result: Result, mode: Mode | None) -> Recorded | None:
    file = test_folder(result.folder, mode) / timeline.FILE_NAME if mode else None
    if file is None or not file.exists():
        return None
    try:
        recorded = timeline.load(file)
    except InferenceError as error:
        raise ConfigError(str(error)) from error
    return recorded if len(recorded.issued_us) else None


def _peak(result: Result) -> tuple[Probe, ...]:
    test = result.tests.get(Mode.FIND_PEAK)
    recorded = _timeline(result, Mode.FIND_PEAK) if test else None
    if not test or not test.plan or not recorded:
        return ()
    try:
        log = logs.read_detail(test_folder(result.folder, Mode.FIND_PEAK))
    except InferenceError:
        return ()  # The logs need not be kept.
    return peak.probes(log, recorded, test.plan)


def _courses(result: Result) -> tuple[Course, ...]:
    if result.mode is None:
        return ()
    folder = test_folder(result.folder, result.mode)
    try:
        found = record.load(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{folder / record.FILE_NAME} is damaged: {error}") from error
    load = result.test.load
    if load and load.others is not None and result.server.is_on_this_machine:
        return tuple(one.without_cpus() for one in found)
    return found

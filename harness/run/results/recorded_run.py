"""A finished run, read back from its folder: results.json, and the timeline of its requests if it has one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.run.results import bottleneck
from harness.run.worker import timeline
from harness.run.results.result import test_folder
from harness.run.results.bottleneck import Evidence
from harness.run.results.bottleneck import Load
from harness.errors import ConfigError, InferenceError
from harness.run.mlperf.plan import PERCENTILE
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.timeline import Recorded
from harness.triton.statistics import ServerStatistics
from harness.run.mlperf.verdict import Metric

RESULTS_NAME = "results.json"
_NEEDED = {
    "model": str,
    "platform": str,
    "scenario": str,
    "verdict": str,
    "kind": str,
    "deviations": list,
    "reasons": list,
    "tests": dict,
    "server": dict,
    "args": dict,
    "cmdline": str,
    "time": int,
}


@dataclass(frozen=True)
class RecordedRun:
    """One results folder. Figures are LoadGen's, as results.json has them."""

    folder: Path
    document: dict[str, Any]
    """results.json."""
    scenario: Scenario
    recorded: Recorded | None
    """Of the performance test; None where it left no timeline."""

    @property
    def name(self) -> str:
        """The folder's own."""
        return self.folder.name

    @property
    def is_valid(self) -> bool:
        """Whether its figures count."""
        return bool(self.document["verdict"] == "VALID")

    @property
    def mode(self) -> Mode | None:
        """Of the performance test; None where only accuracy was tested."""
        return _performance_mode(self.document)

    @property
    def test(self) -> dict[str, Any]:
        """The performance test's outcome; empty where there was none."""
        return self.document["tests"][self.mode] if self.mode else {}

    @property
    def plan(self) -> dict[str, Any]:
        """What LoadGen was told about the performance test; empty where that was not started."""
        return self.test.get("plan") or {}

    @property
    def entry(self) -> dict[str, Any]:
        """The reference's keys."""
        found: dict[str, Any] = self.document.get(f"TestScenario.{self.scenario}", {})
        return found

    @property
    def metric(self) -> Metric | None:
        """The figure that MLPerf ranks by; None where there is none."""
        found = self.document.get("metric")
        return Metric(**found) if found else None

    @property
    def is_latency_metric(self) -> bool:
        """Whether a lower figure is better."""
        return self.scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM)

    @property
    def accuracy(self) -> dict[str, Any] | None:
        """`harness.answers.accuracy.Accuracy`, as JSON."""
        return self.document.get("accuracy")

    @property
    def percentiles_ms(self) -> dict[float, float]:
        """LoadGen's latency by percentile (50.0, 99.9); empty where it measured none."""
        return {float(name): value * 1e3 for name, value in self.entry.get("percentiles", {}).items()}

    @property
    def ranked_percentile(self) -> float | None:
        """The percentile of latency that decides in this scenario; None in Offline."""
        share = PERCENTILE.get(self.scenario)
        return round(share * 100, 2) if share else None

    @property
    def bound_ms(self) -> float | None:
        """Server: the latency that 99 % of the queries must keep."""
        if self.scenario != Scenario.SERVER or not self.plan:
            return None
        return float(self.plan["server_target_latency_ns"]) / 1e6

    @property
    def offered_qps(self) -> float | None:
        """Server: the rate at which LoadGen asked; None in a search, which has many."""
        if self.scenario != Scenario.SERVER or self.mode != Mode.PERFORMANCE or not self.plan:
            return None
        return float(self.plan["target_qps"])

    @property
    def samples_per_s(self) -> float | None:
        """LoadGen's throughput, whatever the scenario is ranked by."""
        rate = self.entry.get("qps")
        if not rate:
            return None
        per_query = self.plan.get("samples_per_query", 1) if self.scenario == Scenario.MULTI_STREAM else 1
        return float(rate) * per_query

    @property
    def statistics(self) -> ServerStatistics | None:
        """Triton's account of the performance test; None where it gave none."""
        found = self.test.get("statistics")
        if not found:
            return None
        fields = {key: value for key, value in found.items() if key != "mean_batch_size"}
        sizes = fields["executions_by_batch_size"]
        return ServerStatistics(
            **{**fields, "executions_by_batch_size": {int(size): count for size, count in sizes.items()}}
        )

    @property
    def evidence(self) -> Evidence | None:
        """What shows who holds the run back; None where too little is known."""
        statistics, rate, mean_s = self.statistics, self.samples_per_s, self.entry.get("mean")
        if statistics is None or not rate or not mean_s or self.mode != Mode.PERFORMANCE:
            return None
        server = self.document["server"]
        servers = len(server["urls"])
        return bottleneck.evidence_of(
            statistics,
            self.scenario,
            Load(
                in_flight=server["tuning"]["in_flight"] * servers,
                instances=server["tuning"]["server"]["instances"] * servers,
                client_processes=server["client_processes"],
            ),
            samples_per_s=rate,
            mean_latency_ns=mean_s * 1e9,
            client_cpu_s=self.test["client_cpu_s"],
            test_s=self.test["test_s"],
        )


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
    _check(document, file)
    scenario = Scenario(document["scenario"])
    run = RecordedRun(file.absolute().parent, document, scenario, _timeline(file.parent, document))
    with understood(file):
        # Most of what is wrong inside is found here, before anything is shown of it.
        _ = run.metric, run.percentiles_ms, run.bound_ms, run.samples_per_s, run.evidence
    return run


@contextmanager
def understood(*sources: Path) -> Iterator[None]:
    """Take a failure of the block for what it is: documents of other makers hold other values.

    Raises:
        ConfigError: instead of whatever a missing or odd value led to.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(
            f"{' or '.join(map(str, sources))} is not a result of this harness, or of another version: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check(document: Any, file: Path) -> None:
    """See that a document is one of ours, before anything is taken from it."""
    if not isinstance(document, dict):
        raise ConfigError(f"{file} is not a result of this harness: it holds no object")
    for key, kind in _NEEDED.items():
        if not isinstance(document.get(key), kind):
            raise ConfigError(f"{file} is not a result of this harness: it has no {key!r}")
    if document["scenario"] not in list(Scenario):
        raise ConfigError(f"{file} has an unknown scenario: {document['scenario']}")


def _performance_mode(document: dict[str, Any]) -> Mode | None:
    return next((mode for mode in (Mode.PERFORMANCE, Mode.FIND_PEAK) if mode in document["tests"]), None)


def _timeline(folder: Path, document: dict[str, Any]) -> Recorded | None:
    mode = _performance_mode(document)
    file = test_folder(folder, mode) / timeline.FILE_NAME if mode else None
    if file is None or not file.exists():
        return None
    try:
        recorded = timeline.load(file)
    except InferenceError as error:
        raise ConfigError(str(error)) from error
    return recorded if len(recorded.issued_us) else None

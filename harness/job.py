"""What the runner asks of a worker, and what becomes of it: two files beside LoadGen's logs."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, InferenceError
from harness.loadgen import Mode, Plan
from harness.machine import files
from harness.rounds import Scenario
from harness.sut import Failures
from harness.triton.statistics import ServerStatistics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """All that one test needs, passed as a file."""

    urls: tuple[str, ...]
    """gRPC addresses of the servers."""
    processes: int
    """Client processes; 1: this one."""
    entry: str
    entry_dir: str
    graph_sha256: str
    """Of the verified export; the entry may have been converted again meanwhile."""
    samples: str
    """Path of the .npy array of all preprocessed samples."""
    log_dir: str
    outcome: str
    """Path that the outcome is written to."""
    transport: str
    segment: str
    """Name of the shared memory segment, should one be used."""
    client_batch: int
    in_flight: int
    """Most requests under way at each server."""
    timeout_s: float
    plan: Plan
    has_hint: bool
    """Whether the plan's target_qps or expected_latency_ns was given; calibrated otherwise."""
    precision: str | None = None
    """What the server calculates in (`harness.answers.precision`)."""


@dataclass(frozen=True)
class Outcome:
    """What became of a test, beside LoadGen's own logs."""

    error: str = ""
    """Empty where LoadGen finished; it may still have judged the run INVALID."""
    failures: Failures = dataclasses.field(default_factory=Failures)
    plan: Plan | None = None
    """As run: with the calibrated hints."""
    calibration: str = ""
    transport: str = ""
    statistics: ServerStatistics | None = None
    """Of all servers together."""
    samples_by_server: Sequence[int] = ()
    """Answered by each, in the order of the job's addresses."""
    test_s: float = 0.0
    client_cpu_s: float = 0.0
    peak_rss_bytes: int = 0


def read_job(path: Path) -> Job:
    """Read a job file."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Job(**{**fields, "urls": tuple(fields["urls"]), "plan": _plan(fields["plan"])})


def read_outcome(path: Path) -> Outcome:
    """Read an outcome file.

    Raises:
        InferenceError: there is none: the worker died.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InferenceError(f"the process that ran LoadGen died without a word ({error})") from error
    statistics = fields["statistics"]
    if statistics:
        sizes = statistics["executions_by_batch_size"]
        statistics["executions_by_batch_size"] = {int(size): count for size, count in sizes.items()}
        fields["statistics"] = ServerStatistics(**statistics)
    fields["plan"] = _plan(fields["plan"]) if fields["plan"] else None
    fields["failures"] = Failures(**fields["failures"])
    return Outcome(**fields)


def _plan(fields: dict[str, Any]) -> Plan:
    return Plan(**{**fields, "scenario": Scenario(fields["scenario"]), "mode": Mode(fields["mode"])})


def write_outcome(job: Job, outcome: Outcome) -> None:
    """Write the outcome file of a job; where that fails, the log says why there is none."""
    try:
        files.write(Path(job.outcome), json.dumps(dataclasses.asdict(outcome), indent=2))
    except ConfigError as error:
        logger.error("%s", error)

"""What runner and worker tell each other: two files beside LoadGen's logs, and a pipe.

The files are what the runner asks for, and what became of it. Over the pipe the worker tells twice a second
how far it is. The hot path only counts; a thread of its own reads the counters. The pipe is never waited for:
what it cannot take is dropped. It ends with the worker, however that ends.
"""

import contextlib
import dataclasses
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.errors import ConfigError, InferenceError
from harness.machine import files
from harness.machine.from_json import loads
from harness.machine.host.load import Load
from harness.run.mlperf.plan import Plan
from harness.run.telemetry.record import Telemetry, energy_j
from harness.run.worker.books import Book
from harness.triton.address import Address
from harness.triton.statistics import ServerStatistics

logger = logging.getLogger(__name__)

CLEAR_LINE = "\r\x1b[2K"
"""What the worker writes before its own lines on a terminal, where the runner shows how far it is."""
_EVERY_S = 0.5


@dataclass(frozen=True)
class Job:
    """All that one test needs, passed as a file."""

    servers: tuple[Address, ...]
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
    probe_of: Plan | None = None
    """Server: the test whose rate is looked for with this one, which ends as soon as its own is too high."""
    ends_early: bool = False
    """Server: whether it ends as soon as LoadGen cannot call it VALID any more."""
    precision: str | None = None
    """What the server calculates in (`harness.answers.precision`)."""
    tolerance: float | None = None
    """How far its answers may be from the source framework's: `ModelChoice.tolerance`."""


@dataclass
class Failures:
    """What went wrong, if anything did; any failure makes the run invalid."""

    samples: int = 0
    requests: int = 0
    first: str = ""
    first_sample_indices: tuple[int, ...] = ()
    is_fatal: bool = False
    """No later request can succeed: those are failed without being sent."""


@dataclass(frozen=True)
class SelfTest:
    """How near the server's answers to a few stored inputs are to the source framework's."""

    samples: int
    """How many inputs."""
    agreement: float
    """Share of the classes, or of the boxes, that are the same."""
    shortfall: float | None = None
    """How far below its best the source framework has the worst of the classes that won, in standard
    deviations of its scores; None of a model that answers no scores of classes."""
    difference: float | None = None
    """Of a classifier, how far its numbers are from the source framework's, in their own unit: of the output
    that comes nearest to its tolerance."""
    tolerance: float | None = None
    """What would just have been let pass: such a difference; where `shortfall` is what counts, of that; of a
    detector, a difference of scores and corners of boxes. None in results that did not tell yet."""


@dataclass(frozen=True)
class Share:
    """What one of several servers did of a test."""

    url: str
    transport: str
    """How samples travelled to it: `shm` or `grpc`."""
    statistics: ServerStatistics


@dataclass(frozen=True)
class Outcome:
    """What became of a test, beside LoadGen's own logs."""

    error: str = ""
    """Empty where LoadGen finished; it may still have judged the run INVALID."""
    failures: Failures = dataclasses.field(default_factory=Failures)
    plan: Plan | None = None
    """As run: with the calibrated hints."""
    calibration: str = ""
    self_test: SelfTest | None = None
    """Of the server that was farthest off; None where it was not asked."""
    transport: str = ""
    """How samples travelled: `shm`, `grpc`, or to some servers so, to others so: `shm+grpc`."""
    statistics: ServerStatistics | None = None
    """Of all servers together."""
    shares: Sequence[Share] = ()
    """Of each server, in the order of the job's addresses; empty of one that did it all."""
    books: Sequence[Book] = ()
    """Of each server, in the order of the job's addresses."""
    test_s: float = 0.0
    """LoadGen's wall time, but for loading samples."""
    client_cpu_s: float = 0.0
    """Of all client processes in that time."""
    peak_rss_bytes: int = 0
    load: Load | None = None
    """How busy the client's machine was, as the runner saw it; None: not known, or not ours to say."""
    cut_p99_ns: int = 0
    """Of a Server test that was cut short: the 99th percentile latency until then. 0 of one that was not."""
    telemetry: Sequence[Telemetry] = ()
    """Of each server, in the order of the job's addresses; none where nobody watched."""

    @property
    def energy_per_sample_j(self) -> float | None:
        """Of the servers' GPUs, over the test; None where it is not known."""
        joules, samples = energy_j(self.telemetry), self.statistics.samples if self.statistics else 0
        return joules / samples if joules is not None and samples else None


def read_job(path: Path) -> Job:
    """Read a job file."""
    return loads(Job, path.read_text(encoding="utf-8"))


def read_outcome(path: Path) -> Outcome:
    """Read an outcome file.

    Raises:
        InferenceError: there is none: the worker died.
    """
    try:
        return loads(Outcome, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InferenceError(f"the process that ran LoadGen died without a word ({error})") from error


def write_outcome(job: Job, outcome: Outcome) -> None:
    """Write the outcome file of a job; where that fails, the log says why there is none."""
    try:
        files.write(Path(job.outcome), json.dumps(dataclasses.asdict(outcome), indent=2))
    except ConfigError as error:
        logger.error("%s", error)


class Step(StrEnum):
    """What a worker does, one after the other; samples may be loaded several times."""

    CHECK = "checking the server"
    LOAD = "loading samples"
    CALIBRATE = "calibrating"
    TEST = "testing"


@dataclass(frozen=True)
class Counts:
    """Of the current step."""

    total: int | None = None
    """Samples in all, where that is known."""
    issued: int = 0
    """Samples that LoadGen has asked for."""
    completed: int = 0
    """Samples that are loaded, or answered."""
    in_flight: int = 0
    """Requests under way."""


@dataclass(frozen=True)
class Status:
    """Where a worker is."""

    step: Step
    elapsed_s: float
    """Since the step began for the first time."""
    counts: Counts = Counts()


class Reporter:
    """The worker's side: tells its status for as long as the block takes that this is the context of."""

    def __init__(self, descriptor: int | None) -> None:
        """`descriptor`: the pipe's end to write to; None where nobody wants to know."""
        self._descriptor = descriptor
        self._began: dict[Step, float] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.begin(Step.CHECK)

    def begin(self, step: Step, count: Callable[[], Counts] = Counts) -> None:
        """A step begins; `count` is called now and then from another thread."""
        self._began.setdefault(step, time.monotonic())
        self._current = step, count

    def __enter__(self) -> "Reporter":
        if self._descriptor is not None:
            os.set_blocking(self._descriptor, False)
            self._thread = threading.Thread(
                target=self._report, args=(self._descriptor,), name="reporter", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _report(self, descriptor: int) -> None:
        while not self._over.wait(_EVERY_S):
            step, count = self._current
            status = Status(step, time.monotonic() - self._began[step], count())
            # The runner is stopped (Ctrl-Z), or gone.
            with contextlib.suppress(OSError):
                os.write(descriptor, json.dumps(dataclasses.asdict(status)).encode() + b"\n")


def read_status(line: str) -> Status:
    """What a reporter wrote, a line for each status."""
    return loads(Status, line)

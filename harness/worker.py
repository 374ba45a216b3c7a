"""One LoadGen test in a process of its own: `python -m harness.worker JOB.json`.

LoadGen waits in C++ for samples that never complete, deaf to signals, and keeps state between tests. So the
runner starts this process per test and may kill it at any time: it owns nothing that outlives it.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import loadgen, manifest, server_statistics
from harness.calibration import Calibrator, Hints, Stopwatch, calibrate
from harness.client import TritonClient
from harness.detections import compare, decode, split
from harness.errors import EXIT_SERVER, HarnessError, InferenceError
from harness.loadgen import Mode, Plan
from harness.models.spec import Variant
from harness.postprocess import Tensors, decoder, payload_floats
from harness.precision import BOX_TOLERANCE, GOLDEN_BOXES, GOLDEN_SHARE, is_full, is_near_best
from harness.processes import peak_rss_bytes
from harness.rounds import Scenario
from harness.sample_file import SampleFile
from harness.samples import MessageStore, SampleLibrary, SampleStore, open_store
from harness.server_statistics import ServerStatistics
from harness.sut import Complete, Failures, Sut
from harness.wire import ResponseReader

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.25
_FATAL_GRACE_S = 2.0
"""LoadGen may end by itself when the server is gone (Offline does, at once); after this it is ended."""
_MAX_FAILED_REQUESTS = 64
"""One failure already makes the run invalid; so many make the rest of it a waste of time."""
_GOLDEN_TOLERANCE = 1e-2
"""On floating-point outputs; generous, since a GPU may compute in TF32. The arg-max must be equal."""
_GOLDEN_AGREEMENT = 0.9
"""Share of detections that the server and the source must both find; generous for the same reason."""
_CALIBRATION_SAMPLES = 64


@dataclass(frozen=True)
class Job:
    """All that one test needs, passed as a file."""

    url: str
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
    timeout_s: float
    plan: Plan
    has_hint: bool
    """Whether the plan's target_qps or expected_latency_ns was given; calibrated otherwise."""
    precision: str | None = None
    """What the server calculates in (`harness.precision`)."""


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
    test_s: float = 0.0
    client_cpu_s: float = 0.0
    peak_rss_bytes: int = 0


def read_job(path: Path) -> Job:
    """Read a job file."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Job(**{**fields, "plan": _plan(fields["plan"])})


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


def _write_outcome(job: Job, outcome: Outcome) -> None:
    path = Path(job.outcome)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(dataclasses.asdict(outcome), indent=2), encoding="utf-8")
    partial.rename(path)


class Watchdog(threading.Thread):
    """Ends a test that cannot end by itself: a dead server, a lost request, failure upon failure."""

    def __init__(self, job: Job, sut: Sut) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._job, self._sut = job, sut
        self._over = threading.Event()

    def run(self) -> None:
        """Look at the SUT a few times a second until the test is over."""
        stuck_since: dict[int, tuple[int, float]] = {}
        fatal_since = 0.0
        while not self._over.wait(_WATCH_INTERVAL_S):
            now = time.monotonic()
            failures = self._sut.failures
            if failures.is_fatal:
                fatal_since = fatal_since or now
                if now - fatal_since > _FATAL_GRACE_S:
                    self._end("the server is gone")
            if failures.requests >= _MAX_FAILED_REQUESTS:
                self._end(f"{failures.requests} requests failed")
            for number, slot in enumerate(self._sut.slots):
                if not slot.response_ids:
                    continue
                uses, since = stuck_since.get(number, (-1, now))
                if uses != slot.uses:
                    stuck_since[number] = (slot.uses, now)
                # gRPC's own deadline comes first and completes the samples; this is for when it does not.
                elif now - since > self._job.timeout_s + 10:
                    self._end(f"a request was lost: no answer in {now - since:.0f} s")

    def stop(self) -> None:
        """The test is over."""
        self._over.set()

    def _end(self, reason: str) -> None:
        failures = self._sut.failures
        first = f"; first failure: {failures.first}" if failures.first else ""
        _write_outcome(self._job, Outcome(error=f"{reason}{first}", failures=failures))
        # LoadGen is waiting in C++ in the main thread and would keep the process alive for ever.
        os._exit(EXIT_SERVER)


def run_job(job: Job) -> Outcome:
    """Check the server, calibrate, run LoadGen.

    Raises:
        HarnessError: the test could not be started, or its preparation failed.
    """
    entry_dir = Path(job.entry_dir)
    facts = manifest.load(entry_dir)
    if facts.graph_sha256 != job.graph_sha256:
        raise InferenceError(f"{entry_dir} was converted again by another process: run again")
    variant = facts.variant
    samples = SampleFile(Path(job.samples))
    with TritonClient(job.url) as client:
        _self_test(client, job.entry, variant, entry_dir / manifest.GOLDEN_NAME, is_full(job.precision))
        with contextlib.closing(_open_store(job, client, variant, len(samples))) as store:
            library = SampleLibrary(samples, store)
            new_sut = functools.partial(_new_sut, job, client, variant, library)
            plan, hints = _prepare(job, library, new_sut)
            if plan.mode == Mode.ACCURACY and plan.scenario == Scenario.SERVER:
                # LoadGen paces this one too.
                seconds = len(samples) / plan.target_qps
                logger.info(
                    "%d samples at %.1f per second take %.0f s", len(samples), plan.target_qps, seconds
                )
            before = client.statistics(job.entry)
            sut = new_sut(loadgen.complete)
            test_s, cpu_s = _test(job, plan, library, sut, len(samples))
            statistics = _statistics_after(client, job.entry, before)
    return Outcome(
        failures=sut.failures,
        plan=plan,
        calibration=hints.note,
        transport=store.transport,
        statistics=statistics,
        test_s=test_s,
        client_cpu_s=cpu_s,
        peak_rss_bytes=peak_rss_bytes(os.getpid()),
    )


def _open_store(job: Job, client: TritonClient, variant: Variant, total: int) -> SampleStore:
    # MultiStream repeats samples at the end, so that a query may start at any of them.
    rows = min(job.plan.performance_sample_count, total) + job.plan.samples_per_query - 1
    return open_store(
        client,
        job.entry,
        variant,
        transport=job.transport,
        name=job.segment,
        rows=rows,
        batch=job.client_batch,
    )


def _new_sut(
    job: Job, client: TritonClient, variant: Variant, library: SampleLibrary, complete: Complete
) -> Sut:
    return Sut(
        client,
        library,
        ResponseReader(variant.requested_outputs),
        decoder(variant),
        complete,
        payload_floats=payload_floats(variant),
        batch=job.client_batch,
        in_flight=job.in_flight,
        timeout_s=job.timeout_s,
    )


def _test(job: Job, plan: Plan, library: SampleLibrary, sut: Sut, total: int) -> tuple[float, float]:
    """Run LoadGen under the watchdog; wall and CPU seconds of this process."""
    watchdog = Watchdog(job, sut)
    watchdog.start()
    began, cpu_began = time.monotonic(), time.process_time()
    loadgen.run(
        plan,
        Path(job.log_dir),
        total_sample_count=total,
        load=library.load,
        unload=library.unload,
        issue=sut.issue,
        flush=sut.flush,
    )
    watchdog.stop()
    return time.monotonic() - began, time.process_time() - cpu_began


def _prepare(job: Job, library: SampleLibrary, new_sut: Callable[[Complete], Sut]) -> tuple[Plan, Hints]:
    """Warm up with the batch sizes of the test, and calibrate what was not given."""
    plan = job.plan
    # Such tests end when a known number of samples is answered: LoadGen needs to expect nothing. But it paces
    # Server's all the same, for which any rate will do that the model can keep up with.
    is_counted = plan.mode == Mode.ACCURACY or plan.min_duration_ms == 0
    needs_rate = plan.scenario == Scenario.SERVER and not job.has_hint
    if plan.mode == Mode.ACCURACY and not needs_rate:
        return plan, Hints(plan.target_qps)
    count = min(_CALIBRATION_SAMPLES, plan.performance_sample_count, len(library.samples))
    indices = list(range(count))
    library.load(indices)
    stopwatch = Stopwatch()
    calibrator = Calibrator(new_sut(stopwatch.complete), stopwatch, indices)
    calibrator.warm_up(min(job.client_batch * job.in_flight, count))
    if is_counted and needs_rate:
        rate = 0.5e9 / calibrator.query(1)
        return dataclasses.replace(plan, target_qps=rate), Hints(rate)
    if is_counted or job.has_hint:
        return plan, Hints(plan.target_qps, plan.expected_latency_ns)
    hints = calibrate(
        calibrator,
        plan.scenario,
        samples_per_query=plan.samples_per_query,
        in_flight_samples=job.client_batch * job.in_flight,
        bound_ns=plan.server_target_latency_ns,
    )
    logger.info("%s", hints.note)
    # LoadGen's search starts from a rate that must already keep the bound.
    share = 0.5 if plan.mode == Mode.FIND_PEAK else 1.0
    return dataclasses.replace(
        plan, target_qps=hints.target_qps * share, expected_latency_ns=hints.expected_latency_ns
    ), hints


def _statistics_after(client: TritonClient, entry: str, before: dict[str, Any]) -> ServerStatistics | None:
    """What the server counted; None where it is gone, which is a failure of its own already."""
    try:
        return server_statistics.difference(before, client.statistics(entry))
    except HarnessError as error:
        logger.warning("no server statistics: %s", error)
        return None


def _self_test(client: TritonClient, entry: str, variant: Variant, golden: Path, is_exact: bool) -> None:
    """Compare the live server with what the source framework answered to a few fixed inputs.

    Where `is_exact`, answers must be equal but for rounding; else as `harness.precision` says.

    Raises:
        InferenceError: it answers something else: other weights, a broken backend, a wrong configuration.
    """
    with np.load(golden) as stored:
        expected = dict(stored)
    inputs = expected["input"]
    store = MessageStore(entry, variant, 1)
    store.fill(inputs, range(len(inputs)))
    reader = ResponseReader(variant.requested_outputs)
    answers = [reader.read(client.infer_now(store.request(row, 1)), 1) for row in range(len(inputs))]
    if variant.detection:
        difference = _detections_differ(variant, answers, expected, is_exact)
    else:
        difference = (_outputs_differ if is_exact else _winners_differ)(variant, answers, expected)
    if difference:
        raise InferenceError(
            f"{entry} on this server is not the verified model: {difference} on the stored inputs; convert "
            "it again, or check the server's model repository"
        )


def _outputs_differ(variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any]) -> str:
    """What is wrong with a classifier's answers, or nothing."""
    for row, tensors in enumerate(answers):
        for spec, answer in zip(variant.requested_outputs, tensors, strict=True):
            wanted = expected[f"output:{spec.name}"][row]
            found = answer.reshape(wanted.shape)
            difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
            allowed = _GOLDEN_TOLERANCE if np.issubdtype(wanted.dtype, np.floating) else 0
            if difference > allowed or found.argmax() != wanted.argmax():
                return f"output {spec.name} differs from the source framework by up to {difference:.3g}"
    return ""


def _winners_differ(variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any]) -> str:
    """What is wrong with the answers of a classifier that calculates in fewer bits, or nothing."""
    for position, spec in enumerate(variant.requested_outputs):
        wanted = expected[f"output:{spec.name}"]
        found = np.concatenate([tensors[position].reshape(1, -1) for tensors in answers])
        if spec.shape:
            is_same = is_near_best(wanted)[np.arange(len(wanted)), found.argmax(axis=1)]
            needed = 1.0
        else:
            is_same, needed = found[:, 0] == wanted, GOLDEN_SHARE
        if is_same.mean() < needed:
            return (
                f"output {spec.name} has another winner than the source framework's {(~is_same).sum()} times"
            )
    return ""


def _detections_differ(
    variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any], is_exact: bool
) -> str:
    """What is wrong with a detector's answers, or nothing."""
    found = [records for row, tensors in enumerate(answers) for records in decode(variant, tensors, [row])]
    tolerance, needed = (_GOLDEN_TOLERANCE, _GOLDEN_AGREEMENT) if is_exact else (BOX_TOLERANCE, GOLDEN_BOXES)
    agreement = compare(split(expected[manifest.GOLDEN_DETECTIONS], len(answers)), found, tolerance)
    if agreement.share >= needed:
        return ""
    return f"only {agreement.share:.1%} of its boxes are those of the source framework"


def main() -> int:
    """Run the job named on the command line."""
    job = read_job(Path(sys.argv[1]))
    logging.basicConfig(level=os.environ.get("HARNESS_LOG", "INFO"), format="%(message)s", stream=sys.stderr)
    try:
        outcome = run_job(job)
    except HarnessError as error:
        outcome = Outcome(error=str(error))
    except Exception as error:
        logger.debug("worker failed", exc_info=True)
        outcome = Outcome(error=f"{type(error).__name__}: {error}")
    _write_outcome(job, outcome)
    return EXIT_SERVER if outcome.error else 0


if __name__ == "__main__":
    sys.exit(main())

"""One LoadGen test in a process of its own: `python -m harness.run.worker JOB.json`.

LoadGen waits in C++ for samples that never complete, deaf to signals, and keeps state between tests. So the
runner starts this process per test and may kill it at any time: it owns nothing that outlives it.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.answers.payloads import payload_floats
from harness.answers.precision import is_full
from harness.data.sample_file import SampleFile
from harness.errors import EXIT_SERVER, HarnessError, InferenceError
from harness.machine.command import log_to_stderr
from harness.models import manifest
from harness.run.mlperf import loadgen
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline
from harness.run.worker.calibration import Calibrator, Hints, Stopwatch, calibrate
from harness.run.worker.endpoints import crew_of
from harness.run.worker.job import CLEAR_LINE, Counts, Job, Outcome, Reporter, Step, read_job, write_outcome
from harness.run.worker.qsl import SampleLibrary, Samples
from harness.run.worker.self_test import self_test
from harness.run.worker.sut import Complete, Sut
from harness.run.worker.timeline import Timeline
from harness.triton import statistics
from harness.triton.client import TritonClient
from harness.triton.statistics import ServerStatistics

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.25
_FATAL_GRACE_S = 2.0
"""LoadGen may end by itself when the server is gone (Offline does, at once); after this it is ended."""
_MAX_FAILED_REQUESTS = 64
"""One failure already makes the run invalid; so many make the rest of it a waste of time."""
_CALIBRATION_SAMPLES = 64


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
        write_outcome(self._job, Outcome(error=f"{reason}{first}", failures=failures))
        # LoadGen is waiting in C++ in the main thread and would keep the process alive for ever.
        os._exit(EXIT_SERVER)


class CountedSamples:
    """Samples that count how many of them were read."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.read = 0

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]:
        self.read += 1
        return self._samples[index]


def run_job(job: Job, reporter: Reporter) -> Outcome:
    """Check the server, calibrate, run LoadGen.

    Args:
        job: the test.
        reporter: is told of each step.

    Raises:
        HarnessError: the test could not be started, or its preparation failed.
    """
    entry_dir = Path(job.entry_dir)
    facts = manifest.load(entry_dir)
    if facts.graph_sha256 != job.graph_sha256:
        raise InferenceError(f"{entry_dir} was converted again by another process: run again")
    variant = facts.variant
    samples = CountedSamples(SampleFile(Path(job.samples)))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TritonClient(url)) for url in job.urls]
        for client in clients:
            self_test(client, job.entry, variant, entry_dir / manifest.GOLDEN_NAME, is_full(job.precision))
        crew = stack.enter_context(crew_of(job, clients, variant, len(samples)))
        library = SampleLibrary(samples, crew.store)
        new_sut = functools.partial(
            Sut,
            crew.loop,
            crew.endpoints,
            library,
            payload_floats=payload_floats(variant),
            batch=job.client_batch,
            in_flight=-(-job.in_flight * len(clients) // len(crew.endpoints)),
            answer_now=crew.answer_now,
        )

        def load(indices: list[int]) -> None:
            read = samples.read
            reporter.begin(Step.LOAD, lambda: Counts(len(indices), completed=samples.read - read))
            library.load(indices)

        plan, hints = _prepare(job, load, len(samples), new_sut, reporter)
        if plan.mode == Mode.ACCURACY and plan.scenario == Scenario.SERVER:
            # LoadGen paces this one too.
            seconds = len(samples) / plan.target_qps
            logger.info("%d samples at %.1f per second take %.0f s", len(samples), plan.target_qps, seconds)
        before = [client.statistics(job.entry) for client in clients]
        recorder = Timeline()
        sut = new_sut(loadgen.complete, record=recorder.record)
        cpu_began = crew.cpu_seconds()
        test_s = _test(job, plan, load, sut, len(samples), reporter)
        cpu_s = crew.cpu_seconds() - cpu_began
        counted = _statistics_after(clients, job.entry, before)
        peak_rss = crew.peak_rss_bytes()
    recorder.save(Path(job.log_dir) / timeline.FILE_NAME)
    return Outcome(
        failures=sut.failures,
        plan=plan,
        calibration=hints.note,
        transport=crew.store.transport,
        statistics=statistics.total(counted) if counted else None,
        samples_by_server=[part.samples for part in counted],
        test_s=test_s,
        client_cpu_s=cpu_s,
        peak_rss_bytes=peak_rss,
    )


def _test(
    job: Job, plan: Plan, load: Callable[[list[int]], None], sut: Sut, total: int, reporter: Reporter
) -> float:
    """Run LoadGen under the watchdog; its wall time in seconds."""

    def load_and_test(indices: list[int]) -> None:
        load(indices)
        reporter.begin(Step.TEST, lambda: _counts(plan, sut, total))

    watchdog = Watchdog(job, sut)
    watchdog.start()
    began = time.monotonic()
    loadgen.run(
        plan,
        Path(job.log_dir),
        total_sample_count=total,
        load=load_and_test,
        # The next load takes the rows over.
        unload=lambda _: None,
        issue=sut.issue,
        flush=sut.flush,
    )
    watchdog.stop()
    return time.monotonic() - began


def _counts(plan: Plan, sut: Sut, total: int) -> Counts:
    """How far LoadGen is. Offline issues all its samples at once; how many is its own decision."""
    known = None
    if plan.mode == Mode.ACCURACY:
        known = total
    elif plan.scenario == Scenario.OFFLINE and plan.mode == Mode.PERFORMANCE:
        known = sut.issued_samples or None
    in_flight = sum(1 for slot in sut.slots if slot.response_ids)
    return Counts(known, sut.issued_samples, sut.completed_samples, in_flight)


def _prepare(
    job: Job,
    load: Callable[[list[int]], None],
    total: int,
    new_sut: Callable[[Complete], Sut],
    reporter: Reporter,
) -> tuple[Plan, Hints]:
    """Warm up with the batch sizes of the test, and calibrate what was not given."""
    plan = job.plan
    # Such tests end when a known number of samples is answered: LoadGen needs to expect nothing. But it paces
    # Server's all the same, for which any rate will do that the model can keep up with.
    is_counted = plan.mode == Mode.ACCURACY or plan.min_duration_ms == 0
    needs_rate = plan.scenario == Scenario.SERVER and not job.has_hint
    if plan.mode == Mode.ACCURACY and not needs_rate:
        return plan, Hints(plan.target_qps)
    count = min(_CALIBRATION_SAMPLES, plan.performance_sample_count, total)
    indices = list(range(count))
    load(indices)
    reporter.begin(Step.CALIBRATE)
    stopwatch = Stopwatch()
    calibrator = Calibrator(new_sut(stopwatch.complete), stopwatch, indices)
    in_flight_samples = job.client_batch * job.in_flight * len(job.urls)
    calibrator.warm_up(min(in_flight_samples, count))
    if is_counted and needs_rate:
        rate = 0.5e9 / calibrator.query(1)
        return dataclasses.replace(plan, target_qps=rate), Hints(rate)
    if is_counted or job.has_hint:
        return plan, Hints(plan.target_qps, plan.expected_latency_ns)
    hints = calibrate(
        calibrator,
        plan.scenario,
        samples_per_query=plan.samples_per_query,
        in_flight_samples=in_flight_samples,
        bound_ns=plan.server_target_latency_ns,
    )
    logger.info("%s", hints.note)
    # LoadGen's search starts from a rate that must already keep the bound.
    share = 0.5 if plan.mode == Mode.FIND_PEAK else 1.0
    return dataclasses.replace(
        plan, target_qps=hints.target_qps * share, expected_latency_ns=hints.expected_latency_ns
    ), hints


def _statistics_after(
    clients: Sequence[TritonClient], entry: str, before: Sequence[dict[str, Any]]
) -> list[ServerStatistics]:
    """What each server counted; nothing where one is gone, which is a failure of its own already."""
    try:
        after = [client.statistics(entry) for client in clients]
    except HarnessError as error:
        logger.warning("no server statistics: %s", error)
        return []
    return list(map(statistics.difference, before, after))


def main() -> int:
    """Run the job named on the command line, and tell how far it is to the pipe named after it, if any."""
    job = read_job(Path(sys.argv[1]))
    pipe = int(sys.argv[2]) if len(sys.argv) > 2 else None
    is_over_bar = pipe is not None and sys.stderr.isatty()
    log_to_stderr(os.environ.get("HARNESS_LOG", "INFO"), CLEAR_LINE if is_over_bar else "")
    try:
        with Reporter(pipe) as reporter:
            outcome = run_job(job, reporter)
    except HarnessError as error:
        outcome = Outcome(error=str(error))
    except Exception as error:
        logger.debug("worker failed", exc_info=True)
        outcome = Outcome(error=f"{type(error).__name__}: {error}")
    write_outcome(job, outcome)
    return EXIT_SERVER if outcome.error else 0


if __name__ == "__main__":
    sys.exit(main())

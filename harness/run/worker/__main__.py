"""One LoadGen test in a process of its own: `python -m harness.run.worker JOB.json`.

LoadGen waits in C++ for samples that never complete, deaf to signals, and keeps state between tests. So the
runner starts this process per test and may kill it at any time: it owns nothing that outlives it.
"""

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.answers.precision import is_full
from harness.errors import EXIT_SERVER, HarnessError
from harness.machine.command import log_to_stderr
from harness.models import manifest
from harness.run.mlperf import loadgen
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline
from harness.run.worker.calibration import Calibrator, Hints, Stopwatch, calibrate
from harness.run.worker.endpoints import connected
from harness.run.worker.job import CLEAR_LINE, Counts, Job, Outcome, Reporter, Step, read_job, write_outcome
from harness.run.worker.self_test import self_test
from harness.run.worker.sut import Complete, Sut
from harness.run.worker.timeline import Timeline
from harness.run.worker.watchdog import Watchdog
from harness.triton import statistics
from harness.triton.client import TritonClient
from harness.triton.statistics import ServerStatistics

logger = logging.getLogger(__name__)

_CALIBRATION_SAMPLES = 64


def run_job(job: Job, reporter: Reporter) -> Outcome:
    """Check the server, calibrate, run LoadGen.

    Args:
        job: the test.
        reporter: is told of each step.

    Raises:
        HarnessError: the test could not be started, or its preparation failed.
    """
    golden = Path(job.entry_dir) / manifest.GOLDEN_NAME
    with connected(job) as session:
        is_exact = is_full(job.precision)
        tested = [
            self_test(client, job.entry, session.variant, golden, is_exact=is_exact, tolerance=job.tolerance)
            for client in session.clients
        ]
        samples, total = session.samples, len(session.samples)

        def load(indices: list[int]) -> None:
            read = samples.read
            reporter.begin(Step.LOAD, lambda: Counts(len(indices), completed=samples.read - read))
            session.library.load(indices)

        plan, hints = _prepare(job, load, total, session.sut, reporter)
        if plan.mode == Mode.ACCURACY and plan.scenario == Scenario.SERVER:
            # LoadGen paces this one too.
            seconds = total / plan.target_qps
            logger.info("%d samples at %.1f per second take %.0f s", total, plan.target_qps, seconds)
        before = [client.statistics(job.entry) for client in session.clients]
        recorder = Timeline()
        sut = session.sut(loadgen.complete, recorder.record)
        cpu_began = session.cpu_seconds()
        test_s = _test(job, plan, load, sut, total, reporter)
        cpu_s = session.cpu_seconds() - cpu_began
        counted = _statistics_after(session.clients, job.entry, before)
        peak_rss = session.peak_rss_bytes()
    recorder.save(Path(job.log_dir) / timeline.FILE_NAME)
    return Outcome(
        failures=sut.failures,
        plan=plan,
        calibration=hints.note,
        self_test=min(tested, key=lambda found: (found.agreement, -(found.shortfall or 0.0))),
        transport=session.library.store.transport,
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

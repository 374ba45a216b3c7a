"""One LoadGen test in a process of its own: `python -m harness.run.worker JOB.json`.

LoadGen waits in C++ for samples that never complete, deaf to signals, and keeps state between tests. So the
runner starts this process per test and may kill it at any time: it owns nothing that outlives it.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.answers.precision import is_full
from harness.errors import EXIT_SERVER, HarnessError
from harness.machine import progress
from harness.machine.command import log_to_stderr
from harness.models import manifest
from harness.run.mlperf import loadgen
from harness.run.mlperf.early_stopping import most_over_in, share_over
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline
from harness.run.worker.books import Answered, Book, Ledger, check_rehearsed, fault, not_known
from harness.run.worker.calibration import Calibrator, Hints, Stopwatch, calibrate
from harness.run.worker.endpoints import Meter, Session, connected
from harness.run.worker.job import (
    CLEAR_LINE,
    Counts,
    Failures,
    Job,
    Outcome,
    Reporter,
    SelfTest,
    Share,
    Step,
    read_job,
    write_outcome,
)
from harness.run.worker.self_test import self_test
from harness.run.worker.sut import Complete, Sut
from harness.run.worker.timeline import Timeline
from harness.run.worker.watchdog import Bound, Watchdog
from harness.triton import statistics
from harness.triton.statistics import ServerStatistics

logger = logging.getLogger(__name__)

_CALIBRATION_SAMPLES = 64
_MORE_QUERIES = 1.05
"""LoadGen's schedule is made by chance: a probe may have some more queries than its rate makes."""


def run_job(job: Job, reporter: Reporter) -> Outcome:
    """Check the server, calibrate, run LoadGen.

    Args:
        job: the test.
        reporter: is told of each step.

    Raises:
        HarnessError: the test could not be started, or its preparation failed.
    """
    with connected(job) as session:
        ledgers = [Ledger(client, job.entry) for client in session.clients]
        samples, total = session.samples, len(session.samples)

        def load(indices: list[int]) -> None:
            read = samples.read
            reporter.begin(Step.LOAD, lambda: Counts(len(indices), completed=samples.read - read))
            session.library.load(indices)

        plan, hints, tested = _rehearse(session, ledgers, load, reporter)
        if plan.mode == Mode.ACCURACY and plan.scenario == Scenario.SERVER:
            # LoadGen paces this one too.
            seconds = total / plan.target_qps
            logger.info("%d samples at %.1f per second take %.0f s", total, plan.target_qps, seconds)
        recorder = Timeline()
        sut = session.sut(loadgen.complete, recorder.record)
        job = dataclasses.replace(job, plan=plan)
        so_far = Outcome(
            plan=plan,
            calibration=hints.note,
            self_test=tested,
            transport="+".join(dict.fromkeys(session.transports)),
        )
        watchdog = Watchdog(job, sut, _bound(job, recorder), so_far)
        meter = Meter(session.cpu_seconds)
        _test(job, meter.leaving_out(load), sut, total, reporter, watchdog)
        test_s, cpu_s = meter.read()
        error, books, counted = _closed(ledgers, session.answered(sut), sut.failures)
        peak_rss = session.peak_rss_bytes()
    recorder.save(Path(job.log_dir) / timeline.FILE_NAME)
    return dataclasses.replace(
        so_far,
        error=error,
        failures=sut.failures,
        statistics=statistics.total(counted) if counted else None,
        shares=_shares(books, session.transports, counted),
        books=books,
        test_s=test_s,
        client_cpu_s=cpu_s,
        peak_rss_bytes=peak_rss,
    )


def _rehearse(
    session: Session, ledgers: Sequence[Ledger], load: Callable[[list[int]], None], reporter: Reporter
) -> tuple[Plan, Hints, SelfTest]:
    """Check the model on each server, calibrate, and see whether Triton has counted as much as we have.

    Returns:
        The test as LoadGen is told, what it was calibrated by, and the check that came out worst.
    """
    job = session.job
    golden = Path(job.entry_dir) / manifest.GOLDEN_NAME
    tested = [
        self_test(
            *(client, job.entry, session.variant, golden),
            is_exact=is_full(job.precision),
            tolerance=job.tolerance,
        )
        for client in session.clients
    ]
    rehearsals: list[Sut] = []

    def new_sut(complete: Complete) -> Sut:
        rehearsals.append(session.sut(complete))
        return rehearsals[-1]

    plan, hints = _prepare(job, load, len(session.samples), new_sut, reporter)
    answered = zip(tested, session.answered(*rehearsals), strict=True)
    check_rehearsed(
        [
            ledger.close(Answered(test.samples, test.samples) + more)[0]
            for ledger, (test, more) in zip(ledgers, answered, strict=True)
        ]
    )
    return plan, hints, max(tested, key=_distance)


def _distance(test: SelfTest) -> tuple[float, ...]:
    """How far a server is off."""
    return 1 - test.agreement, test.shortfall or 0.0, test.difference or 0.0


def _test(
    job: Job,
    load: Callable[[list[int]], None],
    sut: Sut,
    total: int,
    reporter: Reporter,
    watchdog: Watchdog,
) -> None:
    """Run LoadGen under the watchdog."""

    def load_and_test(indices: list[int]) -> None:
        load(indices)
        reporter.begin(Step.TEST, lambda: _counts(job.plan, sut, total))

    watchdog.start()
    loadgen.run(
        job.plan,
        Path(job.log_dir),
        total_sample_count=total,
        load=load_and_test,
        # The next load takes the rows over.
        unload=lambda _: None,
        issue=sut.issue,
        flush=sut.flush,
    )
    watchdog.stop()


def _bound(job: Job, recorder: Timeline) -> Bound | None:
    """What ends the test early, if anything does."""
    plan = job.plan
    if job.probe_of:
        probed = dataclasses.replace(job.probe_of, target_qps=plan.target_qps)
        made = plan.target_qps * plan.min_duration_ms / 1000 * _MORE_QUERIES
        return Bound(plan, share_over(probed) * max(plan.min_query_count, made), recorder)
    return Bound(plan, most_over_in(plan), recorder) if job.ends_early else None


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
    in_flight_samples = job.client_batch * job.in_flight * len(job.servers)
    # The tests before this one have warmed all up.
    is_warm = job.probe_of is not None and job.has_hint
    calibrator.warm_up(1 if is_warm else min(in_flight_samples, count))
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


def _closed(
    ledgers: Sequence[Ledger], answered: Sequence[Answered], failures: Failures
) -> tuple[str, list[Book], list[ServerStatistics]]:
    """What is wrong with a test's books, if anything is, and they themselves.

    A failed request may have been carried out or not, and is said to have failed: that is enough.
    """
    try:
        closed = [ledger.close(ours) for ledger, ours in zip(ledgers, answered, strict=True)]
    except HarnessError as gone:
        return "" if failures.requests else not_known(gone), [], []
    books, counted = [book for book, _ in closed], [all_of_it for _, all_of_it in closed]
    return "" if failures.requests else fault(books), books, counted


def _shares(
    books: Sequence[Book], transports: Sequence[str], counted: Sequence[ServerStatistics]
) -> list[Share]:
    """What each of several servers did; none where the books are not closed."""
    if len(books) < 2:
        return []
    parts = zip(books, transports, counted, strict=True)
    return [Share(book.url, transport, statistics) for book, transport, statistics in parts]


def main() -> int:
    """Run the job named on the command line, and tell how far it is to the pipe named after it, if any."""
    job = read_job(Path(sys.argv[1]))
    pipe = int(sys.argv[2]) if len(sys.argv) > 2 else None
    is_over_bar = pipe is not None and progress.is_terminal()
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

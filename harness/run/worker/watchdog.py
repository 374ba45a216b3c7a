"""Ends a test that cannot end by itself: a dead server, a lost request, failure upon failure.

And one of Server's rate once it cannot keep the bound any more: LoadGen itself goes on to the last query,
however late, and waits for its answer.
"""

import dataclasses
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np

from harness.errors import EXIT_INVALID, EXIT_SERVER
from harness.run.mlperf.plan import PERCENTILE, Plan
from harness.run.worker.job import Job, Outcome, write_outcome
from harness.run.worker.sut import Sut
from harness.run.worker.timeline import FILE_NAME, Timeline

logger = logging.getLogger(__name__)

_INTERVAL_S = 0.25
_FATAL_GRACE_S = 2.0
"""LoadGen may end by itself when the server is gone (Offline does, at once); after this it is ended."""
_MAX_FAILED_REQUESTS = 64
"""One failure already makes the run invalid; so many make the rest of it a waste of time."""
_ONLY_FAILURES_S = 5.0
"""Where each failure takes long, as with a server that is stopped, so many would take hours."""
_LOST_GRACE_S = 10.0
"""A request's own deadline comes first and completes its samples; this is for when it does not."""


class Bound:
    """Counts the queries of a Server test that are over the bound: never more than LoadGen will.

    LoadGen counts from when a query was due, the timeline from when it was issued, which is later.
    """

    def __init__(self, plan: Plan, most: float, timeline: Timeline) -> None:
        """`most`: how many of the queries that the plan makes may be over it in the end."""
        self._most, self._bound_ns = most, plan.server_target_latency_ns
        self._scenario, self._timeline = plan.scenario, timeline
        self._seen = self._over = 0

    def is_lost(self) -> bool:
        """Look once: whether more are over the bound already than may be in the end."""
        latencies_ns = self._timeline.latencies_ns(self._seen)
        self._seen += len(latencies_ns)
        self._over += int((latencies_ns > self._bound_ns).sum())
        return self._over > self._most

    def tail_ns(self) -> int:
        """The latency that the bound is of, until now."""
        return int(np.quantile(self._timeline.latencies_ns(), PERCENTILE[self._scenario], method="higher"))

    def save(self, path: Path) -> None:
        """Write the timeline until now; see `Timeline.save`."""
        self._timeline.save(path, len(self._timeline.latencies_ns()))


class Watchdog(threading.Thread):
    """Looks at a SUT a few times a second, and ends the process where the test cannot go on."""

    def __init__(self, job: Job, sut: Sut, bound: Bound | None = None, so_far: Outcome | None = None) -> None:
        """Look after a test.

        Args:
            job: the test.
            sut: what it asks.
            bound: where the test is to be cut short once that is lost.
            so_far: what is known of it before it begins.
        """
        super().__init__(name="watchdog", daemon=True)
        self._job, self._sut, self._bound = job, sut, bound
        self._so_far = so_far or Outcome(plan=job.plan)
        self._over = threading.Event()
        self._fatal_since_s: float | None = None
        self._answered = 0
        self._no_answer_since_s = 0.0
        """Since when every sample failed."""
        self._seen: dict[int, tuple[int, float]] = {}
        """By slot: which request was seen in it (`Slot.uses`), and when for the first time."""

    def run(self) -> None:
        """Look until the test is over."""
        while not self._over.wait(_INTERVAL_S):
            if reason := self.reason_to_end(time.monotonic()):
                self._end(reason)
            if self._bound and not self._sut.failures.requests and self._bound.is_lost():
                self._cut(self._bound)

    def stop(self) -> None:
        """The test is over, unless it is being cut short: then this does not return."""
        self._over.set()
        self.join()

    def reason_to_end(self, now_s: float) -> str | None:
        """Look once: why the test cannot go on, or None; what was seen is kept for the next look."""
        failures = self._sut.failures
        if failures.is_fatal:
            if self._fatal_since_s is None:
                self._fatal_since_s = now_s
            return "the server is gone" if now_s - self._fatal_since_s > _FATAL_GRACE_S else None
        if failures.requests >= _MAX_FAILED_REQUESTS:
            return f"{failures.requests} requests failed"
        answered = self._sut.completed_samples - failures.samples
        if not failures.requests or answered != self._answered:
            self._answered, self._no_answer_since_s = answered, now_s
        elif now_s - self._no_answer_since_s > _ONLY_FAILURES_S:
            return f"{failures.requests} requests failed, and no other was answered in {_ONLY_FAILURES_S:g} s"
        for number, slot in enumerate(self._sut.slots):
            if not slot.response_ids:
                continue
            uses, since_s = self._seen.get(number, (-1, now_s))
            if uses != slot.uses:
                self._seen[number] = slot.uses, now_s
            elif now_s - since_s > self._job.timeout_s + _LOST_GRACE_S:
                return f"a request was lost: no answer in {now_s - since_s:.0f} s"
        return None

    def _cut(self, bound: Bound) -> None:
        """End a test once no request is under way: no samples may be taken from a server that reads them."""
        # What is given up is noted too, and took no time.
        p99_ns = bound.tail_ns()
        try:
            bound.save(Path(self._job.log_dir) / FILE_NAME)
        except OSError as error:
            logger.warning("the test goes on, since what it measured cannot be written: %s", error)
            self._bound = None
            return
        if not self._job.probe_of:
            logger.info("the bound is lost: the test ends as soon as what is under way is answered")
        self._sut.give_up()
        until_s = time.monotonic() + self._job.timeout_s
        while any(slot.response_ids for slot in self._sut.slots) and time.monotonic() < until_s:
            time.sleep(_INTERVAL_S / 10)
        write_outcome(self._job, dataclasses.replace(self._so_far, cut_p99_ns=p99_ns))
        os._exit(EXIT_INVALID)

    def _end(self, reason: str) -> None:
        failures = self._sut.failures
        first = f"; first failure: {failures.first}" if failures.first else ""
        write_outcome(self._job, Outcome(error=f"{reason}{first}", failures=failures))
        # LoadGen is waiting in C++ in the main thread and would keep the process alive for ever.
        os._exit(EXIT_SERVER)

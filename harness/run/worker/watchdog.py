"""Ends a test that cannot end by itself: a dead server, a lost request, failure upon failure."""

import os
import threading
import time

from harness.errors import EXIT_SERVER
from harness.run.worker.job import Job, Outcome, write_outcome
from harness.run.worker.sut import Sut

_INTERVAL_S = 0.25
_FATAL_GRACE_S = 2.0
"""LoadGen may end by itself when the server is gone (Offline does, at once); after this it is ended."""
_MAX_FAILED_REQUESTS = 64
"""One failure already makes the run invalid; so many make the rest of it a waste of time."""
_LOST_GRACE_S = 10.0
"""A request's own deadline comes first and completes its samples; this is for when it does not."""


class Watchdog(threading.Thread):
    """Looks at a SUT a few times a second, and ends the process where the test cannot go on."""

    def __init__(self, job: Job, sut: Sut) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._job, self._sut = job, sut
        self._over = threading.Event()
        self._fatal_since_s: float | None = None
        self._seen: dict[int, tuple[int, float]] = {}
        """By slot: which request was seen in it (`Slot.uses`), and when for the first time."""

    def run(self) -> None:
        """Look until the test is over."""
        while not self._over.wait(_INTERVAL_S):
            if reason := self.reason_to_end(time.monotonic()):
                self._end(reason)

    def stop(self) -> None:
        """The test is over."""
        self._over.set()

    def reason_to_end(self, now_s: float) -> str | None:
        """Look once: why the test cannot go on, or None; what was seen is kept for the next look."""
        failures = self._sut.failures
        if failures.is_fatal:
            if self._fatal_since_s is None:
                self._fatal_since_s = now_s
            if now_s - self._fatal_since_s > _FATAL_GRACE_S:
                return "the server is gone"
        if failures.requests >= _MAX_FAILED_REQUESTS:
            return f"{failures.requests} requests failed"
        for number, slot in enumerate(self._sut.slots):
            if not slot.response_ids:
                continue
            uses, since_s = self._seen.get(number, (-1, now_s))
            if uses != slot.uses:
                self._seen[number] = slot.uses, now_s
            elif now_s - since_s > self._job.timeout_s + _LOST_GRACE_S:
                return f"a request was lost: no answer in {now_s - since_s:.0f} s"
        return None

    def _end(self, reason: str) -> None:
        failures = self._sut.failures
        first = f"; first failure: {failures.first}" if failures.first else ""
        write_outcome(self._job, Outcome(error=f"{reason}{first}", failures=failures))
        # LoadGen is waiting in C++ in the main thread and would keep the process alive for ever.
        os._exit(EXIT_SERVER)

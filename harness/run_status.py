"""How far a test is: what the worker's process tells the runner's, over a pipe, twice a second.

The hot path only counts; a thread of its own reads the counters. The pipe is never waited for: what it cannot
take is dropped. It ends with the worker, however that ends.
"""

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

CLEAR_LINE = "\r\x1b[2K"
"""What the worker writes before its own lines on a terminal, where the runner shows how far it is."""

_EVERY_S = 0.5


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


def parse(line: str) -> Status:
    """What a reporter wrote, a line for each status."""
    fields = json.loads(line)
    return Status(Step(fields["step"]), fields["elapsed_s"], Counts(**fields["counts"]))

"""Who else uses the machine of a run: looked at while it is prepared, and watched during each test."""

import logging
import os
from collections.abc import Collection
from types import TracebackType
from typing import Self

from harness.machine.host import load, use
from harness.machine.host.load import Load
from harness.machine.host.monitor import Monitor

logger = logging.getLogger(__name__)

_SHORTEST_S = 0.5
"""To tell anything of others from."""


class Before:
    """Looks at others while the block lasts in which a run is prepared."""

    def __init__(self, invocation: str) -> None:
        """`invocation`: that the run is a part of."""
        self.invocation = invocation
        self.others: float | None = None
        """CPUs that they used meanwhile; None where it was too short to tell."""
        self._seen: list[str] = []

    def __enter__(self) -> Self:
        self._read, self._cpus = use.reader([os.getpid()])
        self._first = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        last = self._read()
        if pids := use.other_runs():
            runs = "another run is" if len(pids) == 1 else f"{len(pids)} other runs are"
            named = ", ".join(map(str, pids))
            self._seen.append(f"{runs} under way on this machine (pid {named}): each slows the others down")
        if last.at_s - self._first.at_s < _SHORTEST_S:
            return
        self.others = round(load.others_between(self._first, last), 3)
        if load.is_busy(self.others, self._cpus):
            used = load.used_of(self.others, self._cpus)
            self._seen.append(
                f"busy machine: other processes use {used}; the result will say how it was during the test"
            )

    def tell(self) -> None:
        """Say what was seen, once; for when it is certain that something will be measured."""
        while self._seen:
            # No warning, which --quiet would show: the result says it, too.
            logger.info("%s", self._seen.pop(0))


class Watch:
    """Of one test: how busy the machine is for as long as the block takes that this is the context of."""

    def __init__(self, ours: Collection[int], why_unknown: str = "") -> None:
        """Tell one's own processes from others.

        Args:
            ours: processes that are not others', with all that descend from them.
            why_unknown: why these are not all, where they are not.
        """
        read, self._cpus = use.reader(ours)
        self._why_unknown = why_unknown
        self._monitor = Monitor(read)
        self._runs = 0
        self.load: Load | None = None
        """Once the block has ended; None where nothing could be read."""

    def restart(self) -> None:
        """Forget what was seen: the test itself begins only now."""
        self._monitor.restart()

    def __enter__(self) -> Self:
        self._runs = len(use.other_runs())
        self._monitor.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._monitor.__exit__(kind, error, trace)
        self.load = load.load_of(
            self._monitor.readings,
            self._cpus,
            why_unknown=self._why_unknown,
            other_runs=max(self._runs, len(use.other_runs())),
        )

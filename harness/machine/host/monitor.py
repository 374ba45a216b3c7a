"""Readings of the machine at intervals, by a thread of a process that does nothing else meanwhile."""

import threading
import time
from collections.abc import Callable
from typing import Generic, Self, TypeVar

EVERY_S = 1.0
_LARGEST_SHARE = 0.005
"""Of one CPU, that reading may take (20 to 40 us a process): where there are many, it is done less often."""

T = TypeVar("T")


class Monitor(Generic[T]):
    """Reads while the block lasts that this is the context of; afterwards `readings` are complete."""

    def __init__(
        self, read: Callable[[], T], every_s: float = EVERY_S, largest_share: float = _LARGEST_SHARE
    ) -> None:
        """Nothing is read yet.

        Args:
            read: called in a thread of its own, but for the first and the last time.
            every_s: how often.
            largest_share: of one CPU's time, that reading may take; it is done less often where it would.
        """
        self.readings: list[T] = []
        self._read, self._every_s, self._largest_share = read, every_s, largest_share
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="monitor", daemon=True)

    def restart(self) -> None:
        """What is to be watched begins only now."""
        self.readings = [self._read()]

    def __enter__(self) -> Self:
        self.restart()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.readings.append(self._read())

    def _go_on(self) -> None:
        wait_s = self._every_s
        while not self._over.wait(wait_s):
            began_s = time.thread_time()
            self.readings.append(self._read())
            wait_s = max(self._every_s, (time.thread_time() - began_s) / self._largest_share)

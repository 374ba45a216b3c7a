"""Readings of the machine at intervals, by a thread of a process that does nothing else meanwhile."""

import threading
import time
from collections.abc import Callable

from harness.machine.host.use import Reading

EVERY_S = 1.0
_LARGEST_SHARE = 0.005
"""Of one CPU, that reading may take (20 to 40 us a process): where there are many, it is done less often."""


class Monitor:
    """Reads while the block lasts that this is the context of; afterwards `readings` are complete."""

    def __init__(self, read: Callable[[], Reading], every_s: float = EVERY_S) -> None:
        """`read` is called in a thread of its own, but for the first and the last time."""
        self.readings: list[Reading] = []
        self._read, self._every_s = read, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="monitor", daemon=True)

    def restart(self) -> None:
        """What is to be watched begins only now."""
        self.readings = [self._read()]

    def __enter__(self) -> "Monitor":
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
            wait_s = max(self._every_s, (time.thread_time() - began_s) / _LARGEST_SHARE)

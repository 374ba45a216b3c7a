"""Whose a process is, and what is read of processes while something is measured."""

import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from harness.machine.kernel import descendants, processes
from harness.server.lifecycle import ServerInfo

CLIENT, SERVER, STUBS = "client", "server", "stubs"
T = TypeVar("T")


class Watch(Generic[T]):
    """Reads again and again until the block ends."""

    def __init__(self, read: Callable[[], T], interval_s: float) -> None:
        self.readings: list[T] = []
        self._read, self._interval_s = read, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.readings.append(self._read())


def parts(servers: Sequence[ServerInfo]) -> dict[str, set[int]]:
    """Ids of the processes that are there now: the clients below this one, the servers, and their stubs."""
    found = processes()
    served = {server.pid for server in servers}
    stubs = descendants(found, served) - served
    # A server's supervisor is a child of ours.
    supervisors = {found[pid].parent for pid in served if pid in found}
    clients = descendants(found, [os.getpid()]) - {os.getpid()} - served - stubs - supervisors
    return {CLIENT: clients, SERVER: served, STUBS: stubs}

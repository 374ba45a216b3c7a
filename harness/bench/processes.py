"""Whose a process is, and what is read of processes while something is measured."""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from harness.machine.kernel import parents
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
    children: dict[int, set[int]] = defaultdict(set)
    for pid, parent in parents().items():
        children[parent].add(pid)
    served = {server.pid for server in servers}
    stubs = set[int]().union(*(_below(pid, children) for pid in served))
    # A server's supervisor is a child of ours.
    supervisors = {pid for pid, below in children.items() if served & below}
    clients = _below(os.getpid(), children) - served - stubs - supervisors
    return {CLIENT: clients, SERVER: served, STUBS: stubs}


def _below(pid: int, children: Mapping[int, set[int]]) -> set[int]:
    direct = children.get(pid, set())
    return direct.union(*(_below(child, children) for child in direct))

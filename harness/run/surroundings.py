"""Who else uses the machine of a run: asked while it is prepared, and watched during each test."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from harness.machine import kernel
from harness.machine.host import load, use
from harness.machine.host.load import Load
from harness.machine.host.monitor import Monitor
from harness.run.worker.job import Status, Step
from harness.triton.address import Address
from harness.triton.client import is_on_this_host

logger = logging.getLogger(__name__)

_SHORTEST_S = 0.5
"""To tell anything of others from."""
_SERVER = "tritonserver"
"""Its process."""


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

    def __init__(self, servers: Sequence[Address]) -> None:
        """`servers`: whose processes are ours too, where they are on this machine."""
        roots, self._why_unknown = _ours(servers)
        read, self._cpus = use.reader(roots)
        self._monitor = Monitor(read)
        self._runs = 0
        self.load: Load | None = None
        """Once the block has ended; None where nothing could be read."""

    def passed_on(self, statuses: Iterable[Status]) -> Iterator[Status]:
        """What a worker tells of itself; what was seen before its test began is forgotten."""
        is_test = False
        for status in statuses:
            if status.step == Step.TEST and not is_test:
                is_test = True
                self._monitor.restart()
            yield status

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


def _ours(servers: Sequence[Address]) -> tuple[set[int], str]:
    """Processes that are not others', and why others cannot be told from them, where they cannot."""
    found = {os.getpid()}
    for server in servers:
        if is_on_this_host(server):
            port = server.host_and_port[1]
            pids = kernel.listeners(int(port)) if port.isdecimal() else set()
            processes = kernel.processes()
            if not any(pid in processes and processes[pid].name == _SERVER for pid in pids):
                return found, f"the processes of the server at {server.url} cannot be seen"
            found |= pids
        elif not use.sees_all_processes():
            return found, f"the server at {server.url} may be on this machine, in another container"
    return found, ""


def new_invocation() -> str:
    """What all results of one command have in common, and no others: when it began, and its process."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"

"""Reads the servers' metrics once a second while a test runs.

In the process that waits for the test, on a thread for each server: the hot path has a process of its own.
A reading costs as much as parsing a small file, and the server an HTTP request that its models do not notice.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import ServerError
from harness.run.telemetry import record
from harness.run.telemetry.nvml import Nvml, Unavailable
from harness.run.telemetry.record import Reading, Telemetry
from harness.triton.address import Address
from harness.triton.client import is_on_this_host
from harness.triton.messages import name_and_version
from harness.triton.metrics import endpoint
from harness.triton.metrics.text import Metrics, parse

_EVERY_S = 1.0
_MOST_FAILURES = 3
"""In a row, before the first answer: then there is nothing to wait for."""


class _ServerWatch:
    """One server's metrics."""

    def __init__(self, server: Address, model: str, over: threading.Event) -> None:
        self._model, self._over = model, over
        self._known = Telemetry(server.url, server.metrics_url)
        # Asked here and now: it takes a moment of the server's time.
        self._is_here = is_on_this_host(server)
        self._nvml: Nvml | None = None
        self._read: list[tuple[float, Metrics, Mapping[str, float]]] = []
        self._why = ""
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        failures = 0
        while failures < _MOST_FAILURES:
            try:
                self._take()
                failures = 0
            except ServerError as error:
                self._why = str(error)
                failures += not self._read
            if self._over.wait(_EVERY_S):
                break
        # What was told last may be of a moment before the test's end.
        with contextlib.suppress(ServerError):
            if self._read:
                self._take()

    def _take(self) -> None:
        metrics = parse(endpoint.read(self._known.source), self._model)
        if not self._read and metrics.gpus:
            self._look_for_nvml()
        clocks = self._nvml.clocks_mhz() if self._nvml else {}
        self._read.append((time.monotonic(), metrics, clocks))

    def _look_for_nvml(self) -> None:
        why = "" if self._is_here else "the server is not on this machine"
        try:
            self._nvml = Nvml.open() if self._is_here else None
        except Unavailable as error:
            why = str(error)
        self._known = dataclasses.replace(self._known, nvml=why)

    def ended(self, began: float) -> tuple[Telemetry, list[Reading]]:
        """What is known of the server, and what was read, by the moment when LoadGen began."""
        self._thread.join()
        readings = [Reading(at - began, metrics, clocks) for at, metrics, clocks in self._read]
        missing = "" if self._read else self._why or "the test was over before they were read"
        return dataclasses.replace(self._known, missing=missing), readings


class Watch:
    """The metrics of all servers during one test."""

    def __init__(self, servers: Sequence[Address], entry: str) -> None:
        model, _ = name_and_version(entry)
        self._over = threading.Event()
        self._servers = [_ServerWatch(server, model, self._over) for server in servers]
        self._began: float | None = None
        self._ended = 0.0

    def test_began(self, ago_s: float) -> None:
        """LoadGen has begun so long ago; told as often as one likes, the first counts."""
        if self._began is None:
            self._began = time.monotonic() - ago_s

    def end(self) -> None:
        """Read once more, and no more."""
        self._ended = time.monotonic()
        self._over.set()

    def result(self, test_s: float, folder: Path) -> list[Telemetry]:
        """What was told of each server, in their order; the course of it goes into `folder`.

        Args:
            test_s: how long LoadGen took.
            folder: of the test's logs.

        Raises:
            ConfigError: it cannot be written.
        """
        # A test that nobody saw begin is one of less than a second, just before the end.
        began = self._ended - test_s if self._began is None else self._began
        ended = [server.ended(began) for server in self._servers]
        record.save([record.course(known.url, readings, test_s) for known, readings in ended], folder)
        return [
            known if known.missing else record.summary(known, readings, test_s) for known, readings in ended
        ]


@contextlib.contextmanager
def watching(servers: Sequence[Address], entry: str) -> Iterator[Watch]:
    """Watch servers until the block ends.

    Args:
        servers: how they are reached.
        entry: the model, as it is called there.
    """
    watch = Watch(servers, entry)
    try:
        yield watch
    finally:
        watch.end()

"""What client, server and stubs hold, read once a second from /proc and /dev/shm."""

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.machine.kernel import SHM_DIR, parents, status
from harness.server.lifecycle import ServerInfo

CLIENT, SERVER, STUBS = "client", "server", "stubs"
RSS, DESCRIPTORS, THREADS, SHM = "RSS", "descriptors", "threads", "/dev/shm"
_INTERVAL_S = 1.0
_BLOCK_BYTES = 512
"""Of st_blocks."""


def is_bytes(figure: str) -> bool:
    """Whether a figure of a reading is of bytes; the others are counts."""
    return figure == SHM or figure.endswith(RSS)


@dataclass(frozen=True)
class Reading:
    """One look."""

    at_s: float
    """Since the epoch."""
    figures: Mapping[str, int]
    """Bytes or a count, by part and kind: `client RSS`; `/dev/shm` is of the server's regions together."""


class Watch:
    """Reads until the block ends."""

    def __init__(self, server: ServerInfo) -> None:
        self.readings: list[Reading] = []
        self._server = server
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
        while not self._ended.wait(_INTERVAL_S):
            self.readings.append(read(self._server))


def read(server: ServerInfo) -> Reading:
    """Look once; what ends meanwhile counts for nothing."""
    children = _children()
    stubs = _below(server.pid, children)
    served = {server.pid, *stubs}
    # The server's supervisor is a child of ours.
    supervisors = {pid for pid, below in children.items() if server.pid in below}
    clients = _below(os.getpid(), children) - served - supervisors
    figures: dict[str, int] = {}
    for part, pids in ((CLIENT, clients), (SERVER, {server.pid}), (STUBS, stubs)):
        figures |= {f"{part} {kind}": 0 for kind in (RSS, DESCRIPTORS, THREADS)}
        for pid in pids:
            for kind, figure in _held_by(pid).items():
                figures[f"{part} {kind}"] += figure
    figures[SHM] = sum(_bytes(file) for file in SHM_DIR.glob(f"{server.shm_prefix}*"))
    return Reading(time.time(), figures)


def _children() -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for pid, parent in parents().items():
        found[parent].add(pid)
    return found


def _below(pid: int, children: Mapping[int, set[int]]) -> set[int]:
    direct = children.get(pid, set())
    return direct.union(*(_below(child, children) for child in direct))


def _held_by(pid: int) -> dict[str, int]:
    try:
        fields = status(pid)
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return {}
    if "VmRSS" not in fields:
        return {}  # a zombie
    rss = int(fields["VmRSS"].split()[0]) << 10
    return {RSS: rss, DESCRIPTORS: descriptors, THREADS: int(fields["Threads"])}


def _bytes(file: Path) -> int:
    """Pages that a file in /dev/shm really takes."""
    with contextlib.suppress(OSError):
        return file.stat().st_blocks * _BLOCK_BYTES
    return 0

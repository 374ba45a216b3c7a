"""What client, server and stubs hold, read once a second from /proc and /dev/shm."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.bench.processes import parts
from harness.machine.kernel import SHM_DIR, status
from harness.server.lifecycle import ServerInfo

RSS, DESCRIPTORS, THREADS, SHM = "RSS", "descriptors", "threads", "/dev/shm"
INTERVAL_S = 1.0
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


def read(server: ServerInfo) -> Reading:
    """Look once; what ends meanwhile counts for nothing."""
    figures: dict[str, int] = {}
    for part, pids in parts([server]).items():
        figures |= {f"{part} {kind}": 0 for kind in (RSS, DESCRIPTORS, THREADS)}
        for pid in pids:
            for kind, figure in _held_by(pid).items():
                figures[f"{part} {kind}"] += figure
    figures[SHM] = sum(_bytes(file) for file in SHM_DIR.glob(f"{server.shm_prefix}*"))
    return Reading(time.time(), figures)


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

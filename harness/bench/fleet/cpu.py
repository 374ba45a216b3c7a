"""Who uses this machine's cores while something is measured."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bench.processes import CLIENT, parts
from harness.machine.host import use
from harness.machine.kernel import cpu_seconds
from harness.server.lifecycle import ServerInfo

INTERVAL_S = 0.25
LARGEST_SHARE = 0.1
"""Of a core, that reading may take; it is in nobody's figures but the machine's."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)
"""Columns of a CPU in /proc/stat: idle, and waiting for a disk."""
_COUNTED = 8
"""Columns that are of the CPU's own time; a guest's is in them already."""


@dataclass(frozen=True)
class CpuReading:
    """One look: CPU seconds until now."""

    at_s: float
    """Since the epoch."""
    client_s: float
    servers_s: float
    """With their stubs."""
    busy_s: float
    """Of all that runs on the CPU threads that we may use, and what a host took from them."""


@dataclass(frozen=True)
class Cores:
    """How many cores' worth of time each took, on average."""

    client: float
    servers: float
    others: float
    idle: float


def read(servers: Sequence[ServerInfo]) -> CpuReading:
    """Look once; what ends meanwhile counts for nothing."""
    at_s, busy_s = time.time(), _busy_seconds()
    seconds = {part: sum(map(_seconds, pids)) for part, pids in parts(servers).items()}
    client_s = seconds.pop(CLIENT)
    return CpuReading(at_s, client_s, sum(seconds.values()), busy_s)


def _seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        return cpu_seconds(pid)
    return 0.0


def _busy_seconds() -> float:
    counted = use.cpu_ticks(Path("/proc/stat").read_text(encoding="ascii"), os.sched_getaffinity(0))
    ticks = sum(sum(columns[:_COUNTED]) - sum(columns[at] for at in _IDLE) for columns in counted)
    return ticks / _TICKS_PER_S


def used(readings: Sequence[CpuReading], began_s: float, seconds: float, cores: int) -> Cores | None:
    """What was used while a test ran; None where there are too few readings of it.

    Args:
        readings: in the order of time.
        began_s: when it began, since the epoch, in whole seconds.
        seconds: how long it was to take.
        cores: CPU threads that we may use.
    """
    # A second later than it was noted to begin, it has begun.
    inside = [one for one in readings if began_s + 1 <= one.at_s <= began_s + seconds]
    if len(inside) < 2:
        return None
    first, last = inside[0], inside[-1]
    span_s = last.at_s - first.at_s
    client, servers, busy = (
        (getattr(last, name) - getattr(first, name)) / span_s for name in ("client_s", "servers_s", "busy_s")
    )
    return Cores(client, servers, max(0.0, busy - client - servers), max(0.0, cores - busy))

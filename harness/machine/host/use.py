"""Who has used the machine's CPUs: readings of Linux's counters, of which two tell of the time between them.

`user`, `nice` and `system` of /proc/stat count all processes; what is ours of it, /proc/PID/stat of each of
our processes. Interrupts belong to nobody, and are left out. The two are not counted alike (the one by ticks,
the other to the nanosecond), so that what is left for others is exact to a few hundredths of a CPU only.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.machine.host import parts
from harness.machine.host.parts import PROC, SYS
from harness.machine.kernel import Process, descendants, processes

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_INIT_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of linux/proc_ns.h: of who is in no container."""
_MEASURING = frozenset(("harness", "harness.demo", "harness.bench", "harness.tune"))
"""What is run by `python -m` and makes a server work."""


@dataclass(frozen=True)
class Reading:
    """Counters since boot, in seconds of one CPU but for the last two."""

    at_s: float
    """By the monotonic clock."""
    busy_s: float
    """By whichever process."""
    ours_s: float
    steal_s: float
    """Taken by the host of this virtual machine."""
    mhz: float = 0.0
    """Of the fastest core at this moment; 0 where it is not told."""
    throttled: int | None = None
    """How often a core was slowed down for its heat; None where it is not told."""


def read(roots: Collection[int], cpus: Collection[int], proc: Path = PROC, sys: Path = SYS) -> Reading:
    """Read all counters.

    Args:
        roots: processes that are ours, with all that descend from them.
        cpus: those to look at.
        proc: where Linux tells.
        sys: likewise.
    """
    at_s = time.monotonic()
    busy, steal = _ticks(parts.text(proc / "stat"), cpus)
    found = processes(proc)
    ours = sum(found[pid].ticks for pid in descendants(found, roots))
    told = parts.cpuinfo(parts.text(proc / "cpuinfo"))
    frequencies = parts.mhz([cpu for cpu in told if int(cpu["processor"]) in cpus])
    return Reading(
        at_s,
        busy / _TICKS_PER_S,
        ours / _TICKS_PER_S,
        steal / _TICKS_PER_S,
        max(frequencies, default=0.0),
        _throttled(sys),
    )


def reader(roots: Collection[int]) -> tuple[Callable[[], Reading], int]:
    """How to read the counters of the CPUs that these processes may use; and how many CPUs those are."""
    cpus = frozenset[int]().union(*map(_allowed, roots)) or frozenset(os.sched_getaffinity(0))
    return lambda: read(roots, cpus), len(cpus)


def _allowed(pid: int) -> set[int]:
    try:
        return os.sched_getaffinity(pid)
    except OSError:  # it has ended
        return set()


def _ticks(stat: str, cpus: Collection[int]) -> tuple[int, int]:
    """What /proc/stat has counted: time of processes, and stolen time."""
    busy = steal = 0
    for counted in cpu_ticks(stat, cpus):
        busy += sum(counted[:3])
        steal += counted[7] if len(counted) > 7 else 0
    return busy, steal


def cpu_ticks(stat: str, cpus: Collection[int]) -> Iterator[list[int]]:
    """What /proc/stat has counted of each of these CPUs.

    By proc(5): user, nice, system, idle, iowait, irq, softirq, steal, then a guest's, which are in the first.
    """
    for line in stat.splitlines():
        name, *counted = line.split() or [""]
        if name[:3] == "cpu" and name[3:].isdecimal() and int(name[3:]) in cpus:
            yield list(map(int, counted))


def _throttled(sys: Path) -> int | None:
    counters = (sys / "devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    counted = [int(words) for file in counters if (words := parts.text(file).strip()).isdecimal()]
    return sum(counted) if counted else None


def sees_all_processes(proc: Path = PROC) -> bool:
    """Whether this process is in no container, which would hide those of others."""
    try:
        return str((proc / "self/ns/pid").readlink()) == _INIT_NAMESPACE
    except OSError:
        return False


def other_runs(proc: Path = PROC, own: int | None = None) -> tuple[int, ...]:
    """Processes that measure a server with this tool too, but for this one and who has started it.

    Args:
        proc: where Linux tells.
        own: this process.
    """
    found, own = processes(proc), own or os.getpid()
    related = {own, *_ancestors(found, own), *descendants(found, [own])}
    return tuple(sorted(_outermost(found, {pid for pid in found.keys() - related if _measures(proc, pid)})))


def _outermost(found: dict[int, Process], pids: set[int]) -> Iterable[int]:
    """Those that none of the others has started."""
    return (pid for pid in pids if pids.isdisjoint(_ancestors(found, pid)))


def _ancestors(found: dict[int, Process], pid: int) -> Iterator[int]:
    while (process := found.get(pid)) and process.parent != pid:
        pid = process.parent
        yield pid


def _measures(proc: Path, pid: int) -> bool:
    _, found, rest = parts.text(proc / str(pid) / "cmdline").partition("\0-m\0")
    # The second word where the first is of ours and runs another.
    words = rest.split("\0")[:2]
    return bool(found) and words[0].startswith("harness") and not _MEASURING.isdisjoint(words)

"""What Linux tells and does: /proc, prctl, CPU time, /dev/shm. Standard library only."""

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHM_DIR = Path("/dev/shm")
_LISTENING = "0A"
"""In /proc/net/tcp."""
PR_SET_PDEATHSIG = 1


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is none (or only its zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def parents() -> dict[int, int]:
    """Of every process, the one that it is a child of."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def status(pid: int) -> dict[str, str]:
    """What /proc/PID/status has, by its own words; of a zombie no memory.

    Raises:
        OSError: there is no such process.
    """
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines)


def listening_ports(pid: int) -> set[int]:
    """TCP ports that a process of ours listens on."""
    process = Path(f"/proc/{pid}")
    try:
        sockets = {str(file.readlink()) for file in (process / "fd").iterdir()}
        lines = [line for table in process.glob("net/tcp*") for line in table.read_text().splitlines()[1:]]
    except OSError:
        return set()  # it ended
    ports = set()
    for line in lines:
        _, address, _, state, *_, inode = line.split()[:10]
        if state == _LISTENING and f"socket:[{inode}]" in sockets:
            ports.add(int(address.rpartition(":")[2], 16))
    return ports


def prctl(option: int, value: Any) -> None:
    """Have the kernel set or tell an attribute of this process; `value` is a number, or where to put one.

    Raises:
        OSError: it is refused.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


_PR_GET_PDEATHSIG = 2  # linux/prctl.h
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all its threads together, to the nanosecond.

    /proc has it in clock ticks: a short test's client can use less than one.
    """
    # clock_getcpuclockid(3), which Python has for threads only.
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def peak_rss_bytes(pid: int) -> int:
    """Most memory that a process ever had, as the kernel noted it; 0 of one that has ended.

    Not getrusage's figure, which begins with that of whoever forked the process.
    """
    return int(status(pid).get("VmHWM", "0 kB").split()[0]) * 1024


@contextlib.contextmanager
def death_with_parent_put_off() -> Iterator[None]:
    """Live to the end of the block, even if the parent dies: for what must be cleared up."""
    parent, asked = os.getppid(), ctypes.c_int()
    prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked))
    prctl(PR_SET_PDEATHSIG, 0)
    try:
        yield
    finally:
        prctl(PR_SET_PDEATHSIG, asked.value)
        if asked.value and os.getppid() != parent:
            os.kill(os.getpid(), asked.value)

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
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return sum(int(line.split()[1]) * 1024 for line in lines)


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

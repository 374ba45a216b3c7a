"""What Linux tells and does: /proc, prctl, CPU time, /dev/shm. Standard library only."""

import contextlib
import ctypes
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Process:
    """What /proc/PID/stat has of a process."""

    name: str
    parent: int
    ticks: int
    """CPU time of it and of all its children that have ended."""


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Every process, by its number."""
    found = {}
    for stat in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            name, _, rest = stat.read_text(errors="replace").partition("(")[2].rpartition(")")
            fields = rest.split()
            # proc(5): utime, stime, cutime, cstime are the 14th field and those after it, the state the 3rd.
            found[int(stat.parent.name)] = Process(name, int(fields[1]), sum(map(int, fields[11:15])))
    return found


def parents() -> dict[int, int]:
    """Of every process, the one that it is a child of."""
    return {pid: process.parent for pid, process in processes().items()}


def descendants(found: Mapping[int, Process], roots: Collection[int]) -> set[int]:
    """Of these processes, the roots and all that they have started, and those in turn."""
    children: dict[int, list[int]] = {}
    for pid, process in found.items():
        children.setdefault(process.parent, []).append(pid)
    reached: set[int] = set()
    waiting = [pid for pid in roots if pid in found]
    while waiting:
        pid = waiting.pop()
        if pid not in reached:
            reached.add(pid)
            waiting += children.get(pid, ())
    return reached


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
        return {port for socket, port in _listening(process.glob("net/tcp*")) if socket in sockets}
    except OSError:
        return set()  # it ended


def _listening(tables: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """Sockets that are listened on, as a descriptor's link names them, and their TCP ports."""
    for line in (line for table in tables for line in table.read_text().splitlines()[1:]):
        _, address, _, state, *_, inode = line.split()[:10]
        if state == _LISTENING:
            yield f"socket:[{inode}]", int(address.rpartition(":")[2], 16)


def listeners(port: int, proc: Path = Path("/proc")) -> set[int]:
    """The processes that listen on a TCP port, as far as they are ours to look into."""
    found = set()
    with contextlib.suppress(OSError):
        sockets = {socket for socket, at in _listening((proc / "self").glob("net/tcp*")) if at == port}
        for folder in proc.glob("[0-9]*/fd"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if any(str(file.readlink()) in sockets for file in folder.iterdir()):
                    found.add(int(folder.parent.name))
    return found


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

"""Who used the CPUs, from counters as Linux has them; and from this machine's own, where it has to be it."""

import os
import socket
import subprocess
import sys as python
from pathlib import Path

import pytest

from harness.machine import kernel
from harness.machine.host import use

STAT = """cpu  9999 0 0 0 0 0 0 0 0 0
cpu0 1000 20 300 5000 10 7 8 40 0 0
cpu1 2000 0 100 5000 10 7 8 60 0 0
cpu2 70000 0 0 0 0 0 0 0 0 0
intr 1 2
"""
TICKS = os.sysconf("SC_CLK_TCK")


def add(
    proc: Path, pid: int, parent: int, times: tuple[int, int, int, int] = (0, 0, 0, 0), cmdline: str = ""
) -> None:
    """A process whose name has what its line is cut at."""
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    fields = ["S", str(parent), *["0"] * 9, *map(str, times), "20", "0"]
    (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(fields)}\n")
    (folder / "cmdline").write_text(cmdline.replace(" ", "\0") + "\0")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "stat").write_text(STAT)
    return folder


def test_time_of_all_of_ours_of_all_others_and_of_the_host_is_counted_apart(
    proc: Path, tmp_path: Path
) -> None:
    add(proc, 1, 0, (90, 90, 90, 90))
    add(proc, 10, 1, (1, 2, 3, 4))
    add(proc, 11, 10, (10, 20, 30, 40))
    add(proc, 12, 11, (100, 200, 300, 400))
    add(proc, 20, 1, (5, 0, 0, 0))
    add(proc, 30, 1, (7000, 0, 0, 0))
    found = use.read([10, 20, 99], {0, 1}, proc, tmp_path / "sys")
    # user, nice and system of two of three CPUs; not what interrupts took.
    assert found.busy_s == 3420 / TICKS
    assert found.steal_s == 100 / TICKS
    assert found.ours_s == 1115 / TICKS
    assert (found.mhz, found.throttled) == (0.0, None)


def test_the_clock_is_the_fastest_cores_of_those_that_are_looked_at(proc: Path, tmp_path: Path) -> None:
    speeds = {0: 1800.0, 1: 2600.5, 2: 3700.0}
    blocks = [f"processor\t: {at}\ncpu MHz\t\t: {mhz}\n" for at, mhz in speeds.items()]
    (proc / "cpuinfo").write_text("\n".join(blocks))
    for core, count in ((0, 3), (1, 4)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
        (folder / "core_throttle_max_time_ms").write_text("900\n")
    found = use.read([1], {0, 1}, proc, tmp_path / "sys")
    assert (found.mhz, found.throttled) == (2600.5, 7)


def test_another_run_is_one_that_measures_and_that_is_neither_ours_nor_whose_we_are(proc: Path) -> None:
    add(proc, 5, 1, cmdline="python -m harness.tune --model mobilenet")  # has started us
    add(proc, 10, 5, cmdline="python -m harness --model mobilenet")
    add(proc, 11, 10, cmdline="python -m harness.machine.processes 10 harness.run.worker")
    add(proc, 20, 1, cmdline="/venv/bin/python -m harness.demo")
    add(proc, 21, 20, cmdline="python -m harness --model resnet50")  # the same run
    add(proc, 25, 1, cmdline="python -E -m harness.server harness.bench --quick")
    add(proc, 30, 1, cmdline="python -m harness.report results/a")
    add(proc, 31, 1, cmdline="python -m mypy harness")
    add(proc, 32, 1, cmdline="vim harness")
    assert use.other_runs(proc, own=10) == (20, 25)
    assert use.other_runs(proc, own=20) == (5, 25)


def test_a_process_that_works_is_found_in_the_machines_own_counters() -> None:
    """A child burns CPU time: it is ours as long as we say so, and is counted as somebody's in any case."""
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    read, cpus = use.reader([os.getpid()])
    first = read()
    subprocess.run([python.executable, "-c", burn], check=True)
    last = read()
    assert cpus == len(os.sched_getaffinity(0))
    assert last.ours_s - first.ours_s >= 0.3
    assert last.busy_s - first.busy_s >= 0.2
    assert last.at_s > first.at_s


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert kernel.listeners(port) == {os.getpid()}
    assert kernel.listeners(port) == set()


def test_in_a_container_it_is_known_that_not_all_processes_are_seen(tmp_path: Path) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    link = tmp_path / "self/ns/pid"
    assert not use.sees_all_processes(tmp_path)
    link.symlink_to("pid:[4026532281]")
    assert not use.sees_all_processes(tmp_path)
    link.unlink()
    link.symlink_to("pid:[4026531836]")
    assert use.sees_all_processes(tmp_path)

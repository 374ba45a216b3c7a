"""What a machine is made of, from files as two machines have them."""

from pathlib import Path

import pytest

from harness.machine.host.parts import Gpu, Processor, gpus, processor


def cpu(number: int, socket: int, core: int, mhz: str, flags: str = "fpu sse2") -> str:
    return (
        f"processor\t: {number}\nmodel name\t: a CPU\nmicrocode\t: 0x2b000571\ncpu MHz\t\t: {mhz}\n"
        f"physical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: {flags}\n\n"
    )


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    return tmp_path / "sys"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


def test_sockets_cores_threads_nodes_governor_and_clocks_are_counted(proc: Path, sys: Path) -> None:
    # Two sockets of two cores with two threads each; cores have the same numbers in both.
    numbers = [(socket, core) for socket in (0, 1) for core in (0, 1) for _ in (0, 1)]
    write(proc / "cpuinfo", "".join(cpu(at, *where, f"{2000 + at}.5") for at, where in enumerate(numbers)))
    for node in (0, 1):
        (sys / f"devices/system/node/node{node}").mkdir(parents=True)
    for policy in range(8):
        folder = sys / f"devices/system/cpu/cpufreq/policy{policy}"
        write(folder / "scaling_governor", "performance\n" if policy else "powersave\n")
        write(folder / "cpuinfo_max_freq", "3700000\n")
    assert processor(proc, sys) == Processor(
        sockets=2,
        cores=4,
        threads=8,
        numa_nodes=2,
        microcode="0x2b000571",
        governor="performance, powersave",
        mhz=2007.5,
        highest_mhz=3700.0,
        is_virtual=False,
    )


def test_a_virtual_machine_tells_less(proc: Path, sys: Path) -> None:
    write(proc / "cpuinfo", cpu(0, 0, 0, "2600.0", "fpu hypervisor"))
    found = processor(proc, sys)
    assert (found.is_virtual, found.governor, found.highest_mhz, found.numa_nodes) == (True, None, None, None)


def test_where_nothing_is_told_nothing_is_known(proc: Path, sys: Path) -> None:
    assert processor(proc, sys) == Processor()
    assert gpus(proc) == ()
    write(proc / "cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\ncpu MHz\t\t: Unknown\n")
    found = processor(proc, sys)
    assert (found.threads, found.sockets, found.cores, found.mhz) == (2, None, None, None)


@pytest.mark.parametrize(
    ("version", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build",
            "550.54.15",
        ),
        ("something else", None),
    ],
)
def test_gpus_are_those_that_nvidias_driver_tells_of(proc: Path, version: str, driver: str | None) -> None:
    write(proc / "driver/nvidia/version", f"{version}\nGCC version:  gcc version 11.4.0\n")
    for slot in ("0000:01:00.0", "0000:41:00.0"):
        write(
            proc / f"driver/nvidia/gpus/{slot}/information",
            f"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 158\nGPU UUID: \t GPU-{slot[5:7]}\n",
        )
    assert gpus(proc) == tuple(Gpu("NVIDIA H100 80GB HBM3", driver, f"GPU-{bus}") for bus in ("01", "41"))

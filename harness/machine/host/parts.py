"""What a machine is made of, as Linux tells it; None, or nothing, where it does not tell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC, SYS = Path("/proc"), Path("/sys")
_DRIVER = re.compile(r"Module(?: for \S+)?\s+(\d+[.\d]*)")
"""In the first line of NVIDIA's /proc/driver/nvidia/version, of its closed and of its open kernel module."""


@dataclass(frozen=True)
class Processor:
    """All processors of a machine together; of a virtual one, as its host presents them."""

    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    """More than cores where SMT is switched on."""
    numa_nodes: int | None = None
    microcode: str | None = None
    governor: str | None = None
    """Who decides on the frequency; several where not all cores have the same."""
    mhz: float | None = None
    """Of the fastest core when it was read."""
    highest_mhz: float | None = None
    """That any core may reach."""
    is_virtual: bool | None = None


@dataclass(frozen=True)
class Gpu:
    """One graphics processor."""

    name: str
    driver: str | None = None
    uuid: str | None = None


def processor(proc: Path = PROC, sys: Path = SYS) -> Processor:
    """Read /proc/cpuinfo, and what /sys adds."""
    cpus = cpuinfo(text(proc / "cpuinfo"))
    has_topology = bool(cpus) and all("physical id" in cpu and "core id" in cpu for cpu in cpus)
    frequencies = mhz(cpus)
    policies = sorted((sys / "devices/system/cpu/cpufreq").glob("policy*"))
    highest = [float(khz) / 1e3 for one in policies if (khz := text(one / "cpuinfo_max_freq").strip())]
    governors = sorted({word for one in policies if (word := text(one / "scaling_governor").strip())})
    return Processor(
        sockets=len({cpu["physical id"] for cpu in cpus}) if has_topology else None,
        cores=len({(cpu["physical id"], cpu["core id"]) for cpu in cpus}) if has_topology else None,
        threads=len(cpus) or None,
        numa_nodes=len(list((sys / "devices/system/node").glob("node[0-9]*"))) or None,
        microcode=cpus[0].get("microcode") if cpus else None,
        governor=", ".join(governors) or None,
        mhz=max(frequencies) if frequencies else None,
        highest_mhz=max(highest) if highest else None,
        is_virtual="hypervisor" in cpus[0].get("flags", "").split() if cpus else None,
    )


def cpuinfo(document: str) -> list[dict[str, str]]:
    """What /proc/cpuinfo has of each CPU, by its own words."""
    blocks = document.strip().split("\n\n")
    found = [dict(_pair(line) for line in block.splitlines() if ":" in line) for block in blocks]
    return [cpu for cpu in found if "processor" in cpu]


def mhz(cpus: Sequence[Mapping[str, str]]) -> list[float]:
    """How fast each CPU of `cpuinfo` runs now, of those that tell: some are `Unknown`."""
    told = (cpu.get("cpu MHz", "") for cpu in cpus)
    return [float(word) for word in told if word.replace(".", "", 1).isdecimal()]


def gpus(proc: Path = PROC) -> tuple[Gpu, ...]:
    """NVIDIA's, of which its driver tells; in a container too that was given them."""
    found = _DRIVER.search(text(proc / "driver/nvidia/version"))
    driver = found[1] if found else None
    told = sorted((proc / "driver/nvidia/gpus").glob("*/information"))
    described = [dict(map(_pair, text(file).splitlines())) for file in told]
    return tuple(Gpu(one["Model"], driver, one.get("GPU UUID")) for one in described if "Model" in one)


def text(file: Path) -> str:
    """What a file of the kernel's says; nothing where there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()

"""What was read of a server's metrics during one test: its summary, and its course.

The summary is part of results.json, the course is a file beside LoadGen's logs. What a server tells is of its
whole machine, and of all that a GPU does, whoever for.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.machine import files
from harness.machine.from_json import loads
from harness.triton.metrics.text import Gpu, Metrics

FILE_NAME = "telemetry.json"


@dataclass(frozen=True)
class Reading:
    """What was told at one moment."""

    at_s: float
    """Since LoadGen began; before that, less than 0."""
    metrics: Metrics
    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    """Of the GPUs' processors, by UUID; where the server is on this machine."""


@dataclass(frozen=True)
class Range:
    """Mean and maximum over a test."""

    mean: float
    most: float


@dataclass(frozen=True)
class GpuUse:
    """One GPU during a test; None where nothing was told."""

    uuid: str
    """By which the machine's GPUs are known, too; its name is among them (`host.parts`)."""
    memory_total_bytes: float | None = None
    memory_used_bytes: Range | None = None
    utilisation: Range | None = None
    """Share of the time in which it worked, 0 to 1."""
    power_w: Range | None = None
    energy_j: float | None = None
    """From LoadGen's start to its end."""
    clock_mhz: Range | None = None


@dataclass(frozen=True)
class Telemetry:
    """One server during one test."""

    url: str
    """Of the server."""
    source: str
    """Of its metrics."""
    missing: str = ""
    """Why there is nothing else here; empty where there is."""
    readings: int = 0
    cpu: Range | None = None
    """Share of all CPUs of the server's machine that worked, 0 to 1."""
    memory_total_bytes: float | None = None
    memory_used_bytes: Range | None = None
    pending: Range | None = None
    """Requests for the model that waited for an instance."""
    gpus: tuple[GpuUse, ...] = ()
    nvml: str = ""
    """Why the clocks of the GPUs are not known; empty where they are, or there is none."""


@dataclass(frozen=True)
class Course:
    """One server over the time of a test, a value for each reading; None where nothing was told."""

    url: str
    at_s: tuple[float, ...]
    cpu: tuple[float | None, ...]
    pending: tuple[float | None, ...]
    gpu: tuple[float | None, ...]
    """Mean utilisation of its GPUs."""
    power_w: tuple[float | None, ...]
    """Of all its GPUs together."""

    def without_cpus(self) -> "Course":
        """The same; of its CPUs nothing is told."""
        return dataclasses.replace(self, cpu=(None,) * len(self.at_s))


def energy_j(servers: Sequence[Telemetry]) -> float | None:
    """What the GPUs that servers list took in a test, all of them; None where that of one is not told."""
    told = [gpu.energy_j for gpu in each_gpu(servers)]
    known = [joules for joules in told if joules is not None]
    are_all_told = len(known) == len(told) and all(one.gpus for one in servers)
    return sum(known) if known and are_all_told else None


def each_gpu(servers: Sequence[Telemetry]) -> list[GpuUse]:
    """The GPUs of all servers, each once: several servers of one machine list the same.

    Of one that several tell of, the first counts that has its energy.
    """
    found: dict[str, GpuUse] = {}
    for gpu in (gpu for server in servers for gpu in server.gpus):
        if gpu.uuid not in found or found[gpu.uuid].energy_j is None:
            found[gpu.uuid] = gpu
    return list(found.values())


def gpus(servers: Sequence[Telemetry], names: Mapping[str | None, str]) -> str:
    """The GPUs of all servers in words, by `names` of UUIDs; empty where none is told of."""
    found = [
        names.get(gpu.uuid) or f"GPU of {(gpu.memory_total_bytes or 0) / 2**30:.0f} GiB"
        for gpu in each_gpu(servers)
    ]
    return ", ".join(f"{found.count(name)} x {name}" for name in dict.fromkeys(found))


def summary(server: Telemetry, readings: Sequence[Reading], test_s: float) -> Telemetry:
    """Complete what is known of a server by what was read, from just before the test to just after it."""
    within = [one for one in readings if 0 <= one.at_s <= test_s] or list(readings[-1:])
    uuids = dict.fromkeys(gpu.uuid for one in readings for gpu in one.metrics.gpus)
    return dataclasses.replace(
        server,
        readings=len(within),
        cpu=_range(one.metrics.cpu for one in within),
        memory_total_bytes=next((one.metrics.memory_total_bytes for one in within), None),
        memory_used_bytes=_range(one.metrics.memory_used_bytes for one in within),
        pending=_range(one.metrics.pending for one in within),
        gpus=tuple(_use(uuid, readings, within, test_s) for uuid in uuids),
    )


def course(url: str, readings: Sequence[Reading], test_s: float) -> Course:
    """What was read during the test."""
    within = [one for one in readings if 0 <= one.at_s <= test_s]
    return Course(
        url,
        at_s=tuple(round(one.at_s, 3) for one in within),
        cpu=tuple(one.metrics.cpu for one in within),
        pending=tuple(one.metrics.pending for one in within),
        gpu=tuple(_mean(gpu.utilisation for gpu in one.metrics.gpus) for one in within),
        power_w=tuple(_sum(gpu.power_w for gpu in one.metrics.gpus) for one in within),
    )


def save(courses: Sequence[Course], folder: Path) -> None:
    """Write them beside a test's logs, where there is anything.

    Raises:
        ConfigError: it cannot be written.
    """
    if any(one.at_s for one in courses):
        files.write(folder / FILE_NAME, json.dumps([dataclasses.asdict(one) for one in courses]) + "\n")


def load(folder: Path) -> tuple[Course, ...]:
    """Read them; none where the test has left none.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    file = folder / FILE_NAME
    return loads(tuple[Course, ...], file.read_text(encoding="utf-8")) if file.exists() else ()


def _use(uuid: str, readings: Sequence[Reading], within: Sequence[Reading], test_s: float) -> GpuUse:
    def over(of: Callable[[Gpu], float | None]) -> Range | None:
        return _range(of(gpu) for one in within if (gpu := _gpu(one, uuid)))

    totals = (gpu.memory_total_bytes for one in readings if (gpu := _gpu(one, uuid)))
    return GpuUse(
        uuid,
        memory_total_bytes=next(totals, None),
        memory_used_bytes=over(lambda gpu: gpu.memory_used_bytes),
        utilisation=over(lambda gpu: gpu.utilisation),
        power_w=over(lambda gpu: gpu.power_w),
        energy_j=_energy_j(uuid, readings, test_s),
        clock_mhz=_range(one.clocks_mhz.get(uuid) for one in within),
    )


def _gpu(reading: Reading, uuid: str) -> Gpu | None:
    return next((gpu for gpu in reading.metrics.gpus if gpu.uuid == uuid), None)


def _energy_j(uuid: str, readings: Sequence[Reading], test_s: float) -> float | None:
    """By the GPU's own counter, between two readings as if it grew evenly; without one, by its power."""
    told = [(one.at_s, gpu) for one in readings if (gpu := _gpu(one, uuid))]
    counted = np.array([(at_s, gpu.energy_j) for at_s, gpu in told if gpu.energy_j is not None])
    if len(counted) > 1:
        start_j, end_j = np.interp([0.0, test_s], counted[:, 0], counted[:, 1])
        return float(end_j - start_j)
    powers = np.array([(at_s, gpu.power_w) for at_s, gpu in told if gpu.power_w is not None])
    if not len(powers):
        return None
    moments = np.array([0.0, *(at_s for at_s in powers[:, 0] if 0 < at_s < test_s), test_s])
    at_moments = np.interp(moments, powers[:, 0], powers[:, 1])
    # By trapezoids, for which NumPy 1 and 2 have no common name.
    return float(np.sum((at_moments[1:] + at_moments[:-1]) / 2 * np.diff(moments)))


def _range(values: Iterable[float | None]) -> Range | None:
    told = [value for value in values if value is not None]
    return Range(statistics.fmean(told), max(told)) if told else None


def _mean(values: Iterable[float | None]) -> float | None:
    found = _range(values)
    return found.mean if found else None


def _sum(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None

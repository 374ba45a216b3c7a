"""What the servers' own metrics said during each run, side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.compare.differences import MISSING, Difference
from harness.report.charts.scale import number
from harness.run.results.recorded_run import RecordedRun
from harness.run.telemetry.record import GpuUse, Range, Telemetry, each_gpu

_GROUP = "servers' metrics"
_OfGpu = Callable[[GpuUse], Range | None]


def measured(runs: Sequence[RecordedRun]) -> list[Difference]:
    """Each figure that at least one of the runs has, with its value in each; means over servers and GPUs."""
    described = [_described(run) for run in runs]
    names = dict.fromkeys(name for one in described for name in one)
    return [Difference(_GROUP, name, tuple(one.get(name, MISSING) for one in described)) for name in names]


def _described(run: RecordedRun) -> Mapping[str, str]:
    servers = run.result.test.telemetry
    joules = run.result.test.energy_per_sample_j
    figures = {
        "CPUs busy, %": _mean((one.cpu for one in servers), 100.0),
        "requests waiting": _mean(one.pending for one in servers),
        "GPUs busy, %": _mean(_of_gpus(servers, lambda gpu: gpu.utilisation), 100.0),
        "memory of a GPU used, GiB": _mean(_of_gpus(servers, lambda gpu: gpu.memory_used_bytes), 2**-30),
        "power of a GPU, W": _mean(_of_gpus(servers, lambda gpu: gpu.power_w)),
        "clock of a GPU, MHz": _mean(_of_gpus(servers, lambda gpu: gpu.clock_mhz)),
        "energy of a sample, J": joules,
    }
    return {name: number(value) for name, value in figures.items() if value is not None}


def _of_gpus(servers: Sequence[Telemetry], of: _OfGpu) -> Iterable[Range | None]:
    return map(of, each_gpu(servers))


def _mean(ranges: Iterable[Range | None], times: float = 1.0) -> float | None:
    told = [one.mean for one in ranges if one is not None]
    return times * sum(told) / len(told) if told else None

"""What a Triton's metrics say of its machine, its GPUs and its queue.

Names and units are those of Triton's documentation. Which of them a server has depends on how it was built
and on its machine: all may be missing. GPUs' rows have no more than a UUID to name them by, and are missing
where the GPU is divided (MIG) or something else of NVIDIA's already watches it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(
    r"^(nv_(?:gpu_\w+|cpu_\w+|energy_consumption|inference_pending_request_count))(?:\{(.*)\})? (\S+)",
    re.MULTILINE,
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Gpu:
    """One GPU of the server's machine, with all that runs on it; None where nothing is told."""

    uuid: str
    utilisation: float | None = None
    """Share of the time in which it worked, 0 to 1."""
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    """Since the server began."""


@dataclass(frozen=True)
class Metrics:
    """What is told at one moment; None where nothing is."""

    cpu: float | None = None
    """Share of all CPUs of the server's machine that works, whoever for: 0 to 1."""
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    pending: float | None = None
    """Requests for the model that wait for an instance."""
    gpus: tuple[Gpu, ...] = ()


_GPU_FIELDS = {
    "nv_gpu_utilization": "utilisation",
    "nv_gpu_memory_used_bytes": "memory_used_bytes",
    "nv_gpu_memory_total_bytes": "memory_total_bytes",
    "nv_gpu_power_usage": "power_w",
    "nv_energy_consumption": "energy_j",
}


def parse(text: str, model: str = "") -> Metrics:
    """Read Prometheus' text format; what is none of it is passed over.

    Args:
        text: as the endpoint answers.
        model: whose queue is meant; all of its versions count.
    """
    gpus: dict[str, dict[str, float]] = {}
    plain: dict[str, float] = {}
    pending: list[float] = []
    for name, labelled, written in _LINE.findall(text):
        value, labels = _number(written), dict(_LABEL.findall(labelled))
        if value is None:
            continue
        if name in _GPU_FIELDS and labels.get("gpu_uuid"):
            gpus.setdefault(labels["gpu_uuid"], {})[_GPU_FIELDS[name]] = value
        elif name == "nv_inference_pending_request_count" and labels.get("model") == model:
            pending.append(value)
        else:
            plain[name] = value
    return Metrics(
        cpu=plain.get("nv_cpu_utilization"),
        memory_used_bytes=plain.get("nv_cpu_memory_used_bytes"),
        memory_total_bytes=plain.get("nv_cpu_memory_total_bytes"),
        pending=sum(pending) if pending else None,
        gpus=tuple(_gpu(uuid, told) for uuid, told in gpus.items()),
    )


def _gpu(uuid: str, told: Mapping[str, float]) -> Gpu:
    return Gpu(uuid, **told)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

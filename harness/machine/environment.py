"""What a result was measured on and with."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

from harness.machine.host import checkout, parts
from harness.machine.host.checkout import Tool
from harness.machine.host.parts import Gpu, Processor

_PACKAGES = (
    "nvidia-pytriton",
    "tritonclient",
    "grpcio",
    "hpack",
    "mlcommons-loadgen",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "onnxruntime",
    "openvino",
    "tensorflow-cpu",
    "torch",
    "ai-edge-litert",
)


@dataclass(frozen=True)
class Environment:
    """The machine and the versions installed beside this harness; None where a result does not tell."""

    cpu: str | None = None
    cpus_usable: int | None = None
    memory_bytes: int | None = None
    os: str | None = None
    python: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    kernel: str | None = None
    host: str | None = None
    """Its name in the network, unless it was to be left out."""
    processor: Processor = field(default_factory=Processor)
    gpus: tuple[Gpu, ...] = ()
    tool: Tool = field(default_factory=Tool)
    """This harness."""


def describe(*, is_anonymous: bool = False) -> Environment:
    """What there is now; without the host's name where `is_anonymous`."""
    return Environment(
        cpu=cpu_name(),
        cpus_usable=cpu_count(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=platform.platform(),
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
        kernel=platform.release(),
        host=None if is_anonymous else platform.node() or None,
        processor=parts.processor(),
        gpus=parts.gpus(),
        tool=checkout.tool(),
    )


def cpu_name() -> str:
    """The processor's name; empty where the system does not tell."""
    told = parts.cpuinfo(parts.text(parts.PROC / "cpuinfo"))
    return next((cpu["model name"] for cpu in told if "model name" in cpu), "") or platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))

"""What a result was measured on and with."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

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


def describe() -> dict[str, Any]:
    """The machine and the versions installed beside this harness."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cpus_usable": cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))

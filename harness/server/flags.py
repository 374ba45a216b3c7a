"""tritonserver's flags, by its version: the same for the embedded server and for NVIDIA's container.

Standard library only, and nothing of ours: docker/server.Dockerfile copies it into the image.
"""

import secrets
from pathlib import Path

KEY_HEADER = "triton-grpc-protocol-control"
"""Carries the key of a server's control, in gRPC and HTTP alike."""

# All that changes a server. Triton has the same names for gRPC and HTTP.
_CONTROL = "model-repository,shared-memory,trace,logging"

Version = tuple[int, int]
"""Major and minor of Triton's own version: (2, 55) is the container 25.02."""

EMBEDDED: Version = (2, 51)
"""What the wheel that requirements.txt pins carries; its binary has no flag that tells."""

# Each stub starts with a region of its own for tensors, which grows when a batch needs more. Pages that are
# never touched cost nothing.
_SHM_DEFAULT_BYTES = 16 << 20
_SHM_GROWTH_BYTES = 16 << 20

# Importing TensorFlow on a busy machine can take longer than Triton's default of 30 s.
_STUB_TIMEOUT_S = 120

# Request objects that stay allocated for reuse; each may hold a request's tensors (17 MB for a 1200x1200
# image), hence not more. Triton's default is 8.
_REQUEST_POOL = 64

# On SIGTERM; unloading a model properly takes 2 to 3 s, and nobody is served by it.
_EXIT_TIMEOUT_S = 1

_METRICS_INTERVAL_MS = 1000

# An older server takes an unknown flag for an error, and does not start.
_HAS_INFER_THREADS: Version = (2, 57)  # 25.04
_SHM_IS_OFF_BY_DEFAULT: Version = (2, 68)  # 26.04

_CPUS_PER_INFER_THREAD = 16
_MIN_INFER_THREADS = 2
_MAX_INFER_THREADS = 8


def parse_version(text: str) -> Version:
    """Read what the image has in $TRITON_SERVER_VERSION: 2.55.0, or 2.56.0dev of a build of one's own.

    Raises:
        ValueError: it is something else.
    """
    numbers = text.strip().split(".")
    if len(numbers) < 2 or not (numbers[0].isdecimal() and numbers[1].isdecimal()):
        raise ValueError(f"{text!r} is not a version of Triton, such as 2.55.0")
    return int(numbers[0]), int(numbers[1])


def flags(version: Version, cpus: int, *, auto_complete: bool = False) -> list[str]:
    """How we want a server to behave, wherever it runs; places and ports are not part of it.

    Args:
        version: Of the server.
        cpus: That it may use.
        auto_complete: Let backends fill in what a config.pbtxt omits.
    """
    python = {
        "shm-default-byte-size": _SHM_DEFAULT_BYTES,
        "shm-growth-byte-size": _SHM_GROWTH_BYTES,
        "stub-timeout-seconds": _STUB_TIMEOUT_S,
    }
    chosen = [
        "--model-control-mode=explicit",
        # Auto-complete starts one more stub per load and waits for its end: 1.6 s instead of 0.3 s for a
        # small ONNX model. Without it, the file is the truth.
        *([] if auto_complete else ["--disable-auto-complete-config"]),
        f"--grpc-infer-allocation-pool-size={_REQUEST_POOL}",
        f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        # A run reads metrics once a second; by default those of CPUs and GPUs are taken every other second.
        f"--metrics-interval-ms={_METRICS_INTERVAL_MS}",
        # Settings of the Python backend hold for the backends that are built on it, ours.
        *(f"--backend-config=python,{key}={value}" for key, value in python.items()),
    ]
    if version >= _HAS_INFER_THREADS:
        # Triton's default, 2, whatever the machine; its manual promises nothing of more, so few more.
        threads = min(max(cpus // _CPUS_PER_INFER_THREAD, _MIN_INFER_THREADS), _MAX_INFER_THREADS)
        chosen.append(f"--grpc-infer-thread-count={threads}")
    if version >= _SHM_IS_OFF_BY_DEFAULT:
        chosen.append("--allow-client-shm=true")
    return chosen


def write_key(file: Path) -> str:
    """Make a key, put it where only this user can read it, and return it.

    Raises:
        OSError: the file cannot be written.
    """
    key = secrets.token_urlsafe()
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(key, encoding="ascii")
    return key


def control_flags(key: str) -> list[str]:
    """Have a server refuse all that changes it to whoever does not send this key."""
    # Triton adds the first words of the header to gRPC's by itself.
    grpc = KEY_HEADER.removeprefix("triton-grpc-protocol-")
    return [
        f"--grpc-restricted-protocol={_CONTROL}:{grpc}={key}",
        f"--http-restricted-api={_CONTROL}:{KEY_HEADER}={key}",
    ]


def hidden_control_flags(key: str) -> dict[str, str]:
    """By what a command line may show: one of `control_flags`."""
    return dict(zip(control_flags("(hidden)"), control_flags(key), strict=True))

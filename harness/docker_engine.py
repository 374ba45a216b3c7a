"""NVIDIA's own Triton container for a harness outside, through `docker compose` and the files in docker/."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import ServerError
from harness.machine.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docker"
FILES = ("compose.yaml", "compose.host.yaml")
GPU_FILE = "compose.gpu.yaml"
IMAGE = "mlperf-triton-vision-server"
"""Name that compose.yaml gives the image that it builds."""

_SERVICE = "triton"
_GPU_RUNTIME = "nvidia"
_ANSWER_TIMEOUT_S = 10


def is_set_up() -> bool:
    """Whether an engine answers and has our image: `--engine auto` must not download one of 10 GB."""
    return _why_unavailable() is None and _docker("image", "inspect", IMAGE).returncode == 0


def up(repository: Path, host: str, ports: tuple[int, int, int]) -> None:
    """Build the image where it is missing, start the container and wait until it is healthy.

    It gets this machine's GPUs where the engine can pass them on.

    Args:
        repository: Model repository to mount.
        host: Interface to publish on.
        ports: HTTP, gRPC, metrics.

    Raises:
        ServerError: no engine, or compose failed.
    """
    if reason := _why_unavailable():
        raise ServerError(f"no Docker engine: {reason}; start Docker, or use --engine local")
    http, grpc, metrics = (str(port) for port in ports)
    settings = {"TRITON_HTTP_PORT": http, "TRITON_GRPC_PORT": grpc, "TRITON_METRICS_PORT": metrics}
    settings |= {"TRITON_HOST": host, "MODEL_REPOSITORY": str(repository)}
    files = (*FILES, GPU_FILE) if _has_gpus() else FILES
    _compose("up", "--detach", "--wait", _SERVICE, settings=settings, files=files)


def down() -> None:
    """Stop and remove the container.

    Raises:
        ServerError: no engine, or compose failed.
    """
    if reason := _why_unavailable():
        raise ServerError(f"no Docker engine: {reason}")
    _compose("down")


def logs_command(lines: int, follow: bool) -> list[str]:
    """What shows the container's log."""
    return [*_prefix(), "logs", f"--tail={lines}", *(["--follow"] if follow else []), _SERVICE]


def _why_unavailable() -> str | None:
    if shutil.which("docker") is None:
        return "the command `docker` is not installed"
    for command in (("version", "--format={{.Server.Version}}"), ("compose", "version")):
        try:
            answer = _docker(*command)
        except subprocess.TimeoutExpired:
            return f"`docker {command[0]}` does not answer"
        if answer.returncode != 0:
            lines = answer.stderr.strip().splitlines()
            return lines[0] if lines else f"`docker {command[0]}` failed"
    return None


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=_ANSWER_TIMEOUT_S, check=False
    )


def _has_gpus() -> bool:
    """Whether NVIDIA's container toolkit is set up: without it, compose refuses to ask for GPUs."""
    answer = _docker("info", "--format={{range $name, $_ := .Runtimes}}{{$name}} {{end}}")
    return answer.returncode == 0 and _GPU_RUNTIME in answer.stdout.split()


def _prefix(files: Sequence[str] = FILES) -> list[str]:
    return ["docker", "compose", *(f"--file={FOLDER / name}" for name in files)]


def _compose(
    *arguments: str, settings: Mapping[str, str] | None = None, files: Sequence[str] = FILES
) -> None:
    # Its progress, a download of several GB the first time, belongs on the user's terminal: stderr.
    command = [*_prefix(files), *arguments]
    answer = subprocess.run(command, env={**os.environ, **(settings or {})}, check=False)
    if answer.returncode != 0:
        raise ServerError(
            f"docker compose {arguments[0]} failed with {answer.returncode} (its message is above)"
        )

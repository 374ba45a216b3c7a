"""NVIDIA's own Triton container, through `docker compose` and docker/compose.yaml."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.errors import ServerError
from harness.paths import PROJECT_ROOT

COMPOSE_FILE = PROJECT_ROOT / "docker" / "compose.yaml"
IMAGE = "mlperf-triton-vision-server"
"""Name that compose.yaml gives the image that it builds."""

_SERVICE = "triton"
_ANSWER_TIMEOUT_S = 10


def is_set_up() -> bool:
    """Whether an engine answers and has our image: `--engine auto` must not download one of 10 GB."""
    return _why_unavailable() is None and _docker("image", "inspect", IMAGE).returncode == 0


def up(repository: Path, host: str, ports: tuple[int, int, int]) -> None:
    """Build the image where it is missing, start the container and wait until it is healthy.

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
    _compose("up", "--detach", "--wait", _SERVICE, settings=settings)


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


def _prefix() -> list[str]:
    return ["docker", "compose", f"--file={COMPOSE_FILE}"]


def _compose(*arguments: str, settings: Mapping[str, str] | None = None) -> None:
    # Its progress, a download of several GB the first time, belongs on the user's terminal: stderr.
    answer = subprocess.run([*_prefix(), *arguments], env={**os.environ, **(settings or {})}, check=False)
    if answer.returncode != 0:
        raise ServerError(
            f"docker compose {arguments[0]} failed with {answer.returncode} (its message is above)"
        )

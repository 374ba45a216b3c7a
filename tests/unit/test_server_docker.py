"""docker/compose.yaml, and what becomes of `--engine docker` where Docker is absent or silent."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import docker_engine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def service() -> dict[str, Any]:
    """The one service of compose.yaml."""
    document = yaml.safe_load(docker_engine.COMPOSE_FILE.read_text())
    assert set(document) == {"name", "services"}
    assert set(document["services"]) == {"triton"}
    return document["services"]["triton"]


def test_the_service_has_only_keys_of_the_compose_specification(service: dict[str, Any]) -> None:
    assert set(service) == {
        "image", "build", "command", "ports", "volumes", "ipc", "ulimits", "healthcheck",
    }  # fmt: skip
    assert service["image"] == docker_engine.IMAGE
    assert service["command"][0] == "tritonserver"
    assert all(isinstance(argument, str) for argument in service["command"])
    assert all(isinstance(argument, str) for argument in service["healthcheck"]["test"])
    assert service["healthcheck"]["test"][0] == "CMD"


def test_tritons_three_ports_are_published_on_this_machine_only(service: dict[str, Any]) -> None:
    resolved = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port) for port in service["ports"]]
    assert resolved == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]


def test_what_is_mounted_exists_and_is_where_triton_looks(service: dict[str, Any]) -> None:
    mounts = dict(volume.removesuffix(":ro").rsplit(":", 1) for volume in service["volumes"])
    repository, *backends = mounts
    assert mounts.pop(repository) == "/models"
    assert "--model-repository=/models" in service["command"]
    assert (ROOT / "docker" / repository.removeprefix("${MODEL_REPOSITORY:-").rstrip("}")).is_dir()
    for source in backends:
        assert (ROOT / "docker" / source).exists()
        assert mounts[source] == f"/opt/tritonserver/backends/{Path(source).name}"


def test_the_image_is_built_from_a_release_that_still_has_tensorflow(service: dict[str, Any]) -> None:
    assert service["build"]["args"]["TRITON_TAG"] == "${TRITON_TAG:-25.02-py3}"
    dockerfile = (ROOT / "docker" / service["build"]["context"] / "Dockerfile").read_text()
    assert "FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}" in dockerfile
    # The same LiteRT as outside.
    (pin,) = re.findall(r"^ai-edge-litert==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert f'"ai-edge-litert=={pin}"' in dockerfile


def run_up(path: Path, state: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from pathlib import Path; from harness.server import main;"
    code += "sys.exit(main(['up', '--engine', 'docker'], Path(sys.argv[1])))"
    return subprocess.run(
        [sys.executable, "-c", code, str(state)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_without_docker_is_told_so_in_one_line(tmp_path: Path) -> None:
    up = run_up(tmp_path, tmp_path / "state")
    assert up.returncode == 3
    assert up.stderr == (
        "error: no Docker engine: the command `docker` is not installed;"
        " start Docker, or use --engine local\n"
    )


def test_a_client_without_an_engine_is_reported_in_its_own_words(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon.' >&2\nexit 1\n")
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    up = run_up(tmp_path, tmp_path / "state")
    assert up.returncode == 3
    assert up.stderr == (
        "error: no Docker engine: Cannot connect to the Docker daemon.; start Docker, or use --engine local\n"
    )

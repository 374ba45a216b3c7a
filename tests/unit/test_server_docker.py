"""`--engine docker`: what compose is asked for, and what is said where Docker is absent or silent."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness import docker_engine
from tests.docker_files import ROOT, mounts, services


def test_the_servers_ports_are_published_on_this_machine_only() -> None:
    triton = services("compose.host.yaml")["triton"]
    assert triton["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]
    assert "ports" not in services("compose.yaml")["triton"]


def test_the_harness_outside_shares_the_hosts_memory_and_repository() -> None:
    triton = services("compose.host.yaml")["triton"]
    assert triton["ipc"] == "host"
    assert mounts(triton) == {"/models": ("../model_repository", True)}
    # In place of the volume that compose.yaml mounts there.
    assert "/models" in mounts(services("compose.yaml")["triton"])


FAKE = """#!/bin/sh
case "$1" in
    info) echo "runc %s" ;;
    compose) echo "$@" "$MODEL_REPOSITORY $TRITON_HOST $TRITON_GRPC_PORT" >>"%s" ;;
esac
"""


@pytest.mark.parametrize(("runtime", "has_gpus"), [("io.containerd.runc.v2", False), ("nvidia", True)])
def test_only_the_server_is_started_and_with_the_gpus_that_the_engine_has(
    runtime: str, has_gpus: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker, log = tmp_path / "docker", tmp_path / "log"
    docker.write_text(FAKE % (runtime, log))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    docker_engine.up(Path("/my/models"), "127.0.0.1", (1, 2, 3))
    folder = ROOT / "docker"
    files = [f"--file={folder / name}" for name in ("compose.yaml", "compose.host.yaml")]
    files += [f"--file={folder}/compose.gpu.yaml"] if has_gpus else []
    _asked, up = log.read_text().splitlines()
    assert up == f"compose {' '.join(files)} up --detach --wait triton /my/models 127.0.0.1 2"


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

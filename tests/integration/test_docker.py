"""docker/ without an engine: both images laid out as folders, and what compose would run in them, run.

The server is the real tritonserver of the wheel, put where NVIDIA's image has it, without native backends.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from harness.machine.paths import PROJECT_ROOT
from harness.server import flags, launch, regions
from tests.docker_files import FOLDER, Image, lay_out, mounts, services

OTHER_ADDRESS = "127.0.0.2"
"""This machine too, but no address by which a client could tell."""

READY_TIMEOUT_S = 60


@dataclass(frozen=True)
class Containers:
    """Both images with their mounts, and the server running."""

    triton: Image
    client: Image
    volumes: Path
    environment: dict[str, str]
    """The client's."""
    grpc_port: int
    health: list[str]
    """The health check's command."""
    key: Path
    """The file that the server put the key of its control into."""


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """What `docker compose up` makes of compose.yaml, until the client is started."""
    place = tmp_path_factory.mktemp("docker")
    declared = services("compose.yaml")
    images = {}
    for name, dockerfile in {"triton": "server.Dockerfile", "client": "client.Dockerfile"}.items():
        if name == "triton":
            put_tritonserver(place / name / "opt" / "tritonserver")
        images[name] = lay_out(FOLDER / dockerfile, place / name)
        for target, (source, _) in mounts(declared[name]).items():
            volume = place / "volumes" / {".": "docker", "../results": "results"}.get(source, source)
            volume.mkdir(parents=True, exist_ok=True)
            images[name].mount(target, volume)
    with free_ports() as (http, grpc, metrics):
        pass
    environment = environment_of(images["triton"], declared["triton"])
    key = Path(environment["TRITON_KEY_FILE"])
    environment |= {"TRITON_SERVER_VERSION": "2.51.0"}
    environment["PATH"] = f"{place}/triton/opt/tritonserver/bin:{environment['PATH']}"
    prefix = f"triton_docker_test_{os.getpid()}_"
    command = [
        *images["triton"].words(images["triton"].command),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]
    check = declared["triton"]["healthcheck"]["test"]
    assert check[0] == "CMD"
    health = [word.replace(":8000/", f":{http}/") for word in images["triton"].words(check[1:])]
    log = place / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=images["triton"].workdir, env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while subprocess.run(health, cwd=images["triton"].workdir, check=False).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        environment = environment_of(images["client"], declared["client"])
        environment["TRITON_URL"] = environment["TRITON_URL"].replace(
            "triton:8001", f"{OTHER_ADDRESS}:{grpc}"
        )
        yield Containers(
            **images,
            volumes=place / "volumes",
            environment=environment,
            grpc_port=grpc,
            health=health,
            key=key,
        )
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            regions.remove(prefix)


def put_tritonserver(home: Path) -> None:
    """The wheel's server, laid out as in NVIDIA's image."""
    wheel = launch.find_wheel()
    python = home / "backends" / "python"
    python.mkdir(parents=True)
    for file in wheel.python_backend:
        shutil.copy2(file, python / file.name)
    (home / "bin").mkdir()
    wrapper = home / "bin" / "tritonserver"
    environment = launch.environment(wheel)
    exports = [
        f"export {name}={shlex.quote(environment[name])}"
        for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONNOUSERSITE", "CUDA_VISIBLE_DEVICES")
        if name in environment
    ]
    wrapper.write_text("\n".join(["#!/bin/sh", *exports, f'exec {shlex.quote(str(wheel.server))} "$@"']))
    wrapper.chmod(0o755)


@contextlib.contextmanager
def free_ports() -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("0.0.0.0", 0))
        yield [one.getsockname()[1] for one in sockets]


def environment_of(image: Image, service: dict[str, Any]) -> dict[str, str]:
    """A container's environment: compose's, without what this test runs in."""
    given = service["environment"]
    values = image.words(["", *given.values()])[1:]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    return {**kept, **dict(zip(given, values, strict=True))}


def run_client(containers: Containers, *options: str) -> subprocess.CompletedProcess[str]:
    """`docker compose run client OPTION ...`"""
    client = containers.client
    return subprocess.run(
        [*client.words(client.entrypoint), *options],
        cwd=client.workdir,
        env=containers.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_image_without_native_backends_gets_all_of_ours(containers: Containers) -> None:
    folder = containers.triton.root / "opt" / "tritonserver" / "backends"
    assert {path.name for path in folder.iterdir()} == {
        "batching.py", "onnxruntime", "openvino", "python", "pytorch", "tensorflow", "tflite",
    }  # fmt: skip


def test_the_server_is_of_the_version_that_the_flags_are_for(containers: Containers) -> None:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{containers.grpc_port}") as client:
        version = client.get_server_metadata().version
    assert flags.parse_version(version) == flags.EMBEDDED


def test_the_server_is_controlled_by_nobody_but_the_client(containers: Containers) -> None:
    assert containers.key.stat().st_mode & 0o777 == 0o600
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{containers.grpc_port}") as client:
        with pytest.raises(InferenceServerException, match="restricted, expecting header"):
            client.get_model_repository_index()
        client.get_model_repository_index(headers={flags.KEY_HEADER: containers.key.read_text()})


def test_the_clients_command_converts_measures_and_leaves_the_results_on_the_host(
    containers: Containers,
) -> None:
    command = services("compose.yaml")["client"]["command"]
    shorter = {"resnet50": "mobilenet", "30": "1"}
    run = run_client(containers, *(shorter.get(word, word) for word in command), "--count", "16")
    assert run.returncode in (0, 1), run.stderr
    (folder,) = (containers.volumes / "results").iterdir()
    results = json.loads((folder / "results.json").read_text())
    # VALID, but where the machine had more to give during the test than just before it.
    assert [reason for reason in results["reasons"] if not reason.startswith("it ran ")] == []
    # Another address, and yet this machine: samples travel by its memory, and its cores are counted.
    assert results["tests"]["PerformanceOnly"]["transport"] == "shm"
    assert not [text for text in results["deviations"] if "another machine" in text]
    assert (containers.volumes / "model_repository" / "mobilenet_onnxruntime" / "1" / "model.onnx").is_file()
    assert any((containers.volumes / "weights").iterdir())
    assert any((containers.volumes / "state").iterdir())
    assert not any((containers.volumes / "no_data").iterdir())


IS_HERE = """
import sys
from harness.triton.address import Address, parse_headers
from harness.triton.client import is_on_this_host
print(is_on_this_host(Address(sys.argv[1], headers=parse_headers(sys.argv[2:]))))
"""


@pytest.mark.parametrize(
    ("prefix", "host", "is_here"),
    [
        ([], OTHER_ADDRESS, "True"),
        (["unshare", "--mount"], OTHER_ADDRESS, "False"),
        (["unshare", "--mount"], "127.0.0.1", "False"),
    ],
)
def test_a_server_is_on_this_machine_if_it_can_map_our_memory(
    prefix: list[str], host: str, is_here: str, containers: Containers
) -> None:
    """In the last cases, from a container that shares nothing: /dev/shm is another one."""
    if prefix and os.getuid() != 0:
        prefix = [*prefix, "--map-root-user"]
    server = (f"{host}:{containers.grpc_port}", f"{flags.KEY_HEADER}: @{containers.key}")
    ask = shlex.join([sys.executable, "-c", IS_HERE, *server])
    mount = "mount -t tmpfs none /dev/shm && " if prefix else ""
    asked = subprocess.run(
        [*prefix, "sh", "-c", mount + ask], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == is_here
    deadline = time.monotonic() + READY_TIMEOUT_S
    for probe in Path("/dev/shm").glob("mlperf-probe-*"):
        # Another process may be asking now; what it asks with goes as well.
        while probe.exists():
            assert time.monotonic() < deadline, f"{probe} is left behind"
            time.sleep(0.1)


def test_the_client_says_in_one_line_what_is_wrong_with_its_options(containers: Containers) -> None:
    run = run_client(containers, "--model", "resnet51")
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1


def test_fetch_and_convert_are_commands_of_the_client(containers: Containers) -> None:
    assert "Download a model's published weights" in run_client(containers, "fetch", "--help").stdout
    assert "Export a model for Triton" in run_client(containers, "convert", "--help").stdout

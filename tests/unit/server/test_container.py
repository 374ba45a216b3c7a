"""What runs inside the images: whose it becomes, which backends it adds, which command it becomes."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.machine.paths import PROJECT_ROOT
from harness.server.container import backends, client, owner, server
from harness.server.container.client import command_line
from harness.server.container.locked import locked

NATIVE_25_02 = {"dali", "fil", "identity", "onnxruntime", "openvino", "python", "pytorch", "tensorflow"}


@pytest.mark.parametrize(
    ("present", "ours"),
    [
        (NATIVE_25_02, ["tflite"]),
        (NATIVE_25_02 - {"tensorflow"}, ["tensorflow", "tflite"]),
        ({"python", "pytorch"}, ["onnxruntime", "openvino", "tensorflow", "tflite"]),
        ({"python"}, ["onnxruntime", "openvino", "pytorch", "tensorflow", "tflite"]),
    ],
)
def test_the_server_gets_the_backends_that_its_image_lacks(present: set[str], ours: list[str]) -> None:
    assert backends.lacking(present) == ours


def test_every_backend_of_ours_can_be_added() -> None:
    folders = {
        folder.name for folder in (PROJECT_ROOT / "backends").iterdir() if (folder / "model.py").is_file()
    }
    assert set(backends.PACKAGES) == folders


LOCK = """\
ai-edge-litert==2.3.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via -r requirements.txt
numpy==1.26.4 \\
    --hash=sha256:ba
    # via
    #   -r requirements.txt
    #   ai-edge-litert
    #   onnx
onnx==1.23.2 \\
    --hash=sha256:ca
    # via -r requirements.txt
six==1.17.0 \\
    --hash=sha256:da
    # via tqdm
tqdm==4.70.1 \\
    --hash=sha256:ea
    # via ai-edge-litert
# PyTorch's CPU build
torch==2.13.0+cpu \\
    --hash=sha256:fa
    # via -r requirements.txt
# PyTorch's CUDA build, and what it needs
nvidia-cublas==13.1.1.3 \\
    --hash=sha256:ff
    # via torch
torch==2.13.0 \\
    --hash=sha256:fc
    # via -r requirements.txt
"""


def names_in(lock: str) -> list[str]:
    return re.findall(r"^([\w-]+)==", lock, re.MULTILINE)


def test_what_a_package_needs_in_its_turn_is_locked_with_it() -> None:
    chosen = locked(["AI_Edge.LiteRT"], LOCK)
    assert names_in(chosen) == ["ai-edge-litert", "numpy", "six", "tqdm"]
    # A part of the lock as it is, which pip reads.
    assert chosen.startswith(LOCK[: LOCK.index("onnx==")])


def test_an_image_gets_the_build_of_torch_that_needs_no_gpu() -> None:
    chosen = locked(["torch"], LOCK)
    assert chosen.startswith("torch==2.13.0+cpu ")
    assert names_in(chosen) == ["torch"]


def test_a_package_that_is_not_locked_is_named() -> None:
    with pytest.raises(ValueError, match=r"no flatbuffers; .*run\.sh lock"):
        backends.pins(["tflite"], LOCK)


def test_the_real_lock_has_what_every_backend_needs() -> None:
    lock = (PROJECT_ROOT / "requirements.lock").read_text()
    names = names_in(backends.pins(backends.PACKAGES, lock))
    assert {package for packages in backends.PACKAGES.values() for package in packages} <= set(names)
    assert "pytest" not in names


def test_the_real_lock_is_of_the_real_requirements() -> None:
    requirements = (PROJECT_ROOT / "requirements.txt").read_text()
    wanted = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", requirements, re.MULTILINE)
    lock = (PROJECT_ROOT / "requirements.lock").read_text()
    found = re.findall(r"^([\w-]+)==(\S+) \\\n(?=    --hash=sha256:[0-9a-f]{64}\b)", lock, re.MULTILINE)
    assert len(found) == lock.count("==")
    assert not set(wanted) - set(found), "run ./run.sh lock"
    assert ("torch", f"{dict(wanted)['torch']}+cpu") in found


def test_the_benchmark_is_told_the_server_and_the_device_and_options_count_last() -> None:
    environment = {"TRITON_URL": "triton:8001", "TRITON_DEVICE": "gpu", "TRITON_KEY_FILE": "/control/key"}
    assert command_line(["--model", "resnet50", "--device", "cpu"], environment) == [
        "-m", "harness", "--url", "triton:8001", "--device", "gpu",
        "--header", "triton-grpc-protocol-control: @/control/key",
        "--model", "resnet50", "--device", "cpu",
    ]  # fmt: skip
    assert command_line(["--help"], {"TRITON_DEVICE": ""}) == ["-m", "harness", "--help"]


def test_weights_are_fetched_and_models_converted_without_a_server() -> None:
    environment = {"TRITON_URL": "triton:8001"}
    assert command_line(["fetch", "resnet50"], environment) == ["-m", "converters.fetch", "resnet50"]
    assert command_line(["convert", "--model", "mobilenet"], environment) == [
        "-m", "converters", "--model", "mobilenet",
    ]  # fmt: skip


AS_OWNER = """
import os, sys
from pathlib import Path
from harness.server.container.owner import become_owner
become_owner([Path(folder) for folder in sys.argv[1:]])
print(os.getuid(), os.getgid(), os.getgroups(), os.environ["HOME"])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_owner_and_hands_over_what_docker_has_just_made(tmp_path: Path) -> None:
    host, new, used = tmp_path / "host", tmp_path / "new", tmp_path / "used"
    for folder in (host, new, used):
        folder.mkdir()
    os.chown(host, 1234, 5678)
    (used / "file").touch()
    became = subprocess.run(
        [sys.executable, "-c", AS_OWNER, new, used],
        cwd=PROJECT_ROOT,
        env={**os.environ, owner.VARIABLE: str(host)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert became.stdout == "1234 5678 [] /tmp\n"
    assert (new.stat().st_uid, new.stat().st_gid) == (1234, 5678)
    assert used.stat().st_uid == 0


def test_without_a_folder_to_go_by_nobody_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(owner.VARIABLE, raising=False)
    before = os.getuid(), os.environ.get("HOME")
    owner.become_owner([Path("/no such folder")])
    assert (os.getuid(), os.environ.get("HOME")) == before


@pytest.mark.parametrize("version", [None, "latest"])
def test_an_image_without_tritons_version_is_refused_in_one_line(
    version: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRITON_SERVER_VERSION", raising=False)
    if version:
        monkeypatch.setenv("TRITON_SERVER_VERSION", version)
    assert server.main(["serve", "--model-repository=/models"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_server_that_has_no_place_for_its_key_is_not_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_SERVER_VERSION", "2.55.0")
    monkeypatch.delenv(server.KEY_FILE_VARIABLE, raising=False)
    assert server.main(["serve"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot start tritonserver: $TRITON_KEY_FILE ")


SERVE = """
import sys
from harness.server.container import server
server._GRACE_S = {grace_s}
sys.exit(server.main(["serve"]))
"""
FIRST_PROCESS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.getuid() != 0:
    FIRST_PROCESS.append("--map-root-user")


def program(folder: Path, script: str) -> dict[str, str]:
    """An environment in which `tritonserver` is this script of the shell."""
    file = folder / "tritonserver"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TRITON_SERVER_VERSION": "2.55.0",
        server.KEY_FILE_VARIABLE: str(folder / "key"),
    }


@pytest.mark.parametrize("prefix", [[], FIRST_PROCESS], ids=["a child", "first process"])
@pytest.mark.parametrize(
    ("on_term", "grace_s", "said"),
    [("exit 1", 60, ""), ("", 1, "tritonserver did not end within 1 s: killed\n")],
    ids=["ends", "does not end"],
)
def test_a_server_that_is_told_to_end_ends_in_time_and_that_is_no_failure(
    tmp_path: Path, on_term: str, grace_s: int, said: str, prefix: list[str]
) -> None:
    script = f"trap '{on_term or ':'}' TERM; echo ready; while :; do sleep 0.05; done"
    command = [*prefix, sys.executable, "-c", SERVE.format(grace_s=grace_s)]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=program(tmp_path, script), text=True, stdout=-1, stderr=-1
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children) if prefix else process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, said)


def test_every_start_makes_a_key_that_is_in_the_arguments_and_not_in_the_command_line(tmp_path: Path) -> None:
    environment = program(tmp_path, 'echo "$@"; tr "\\0" " " <"/proc/$$/cmdline"')
    keys = set()
    for _ in range(2):
        command = [sys.executable, "-c", SERVE.format(grace_s=60)]
        served = subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True
        )
        key = (tmp_path / "key").read_text()
        given, shown = served.stdout.splitlines()
        assert (given.count(key), shown.count(key), shown.count("(hidden)")) == (2, 0, 2)
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        keys.add(key)
    assert len(keys) == 2


def test_servers_that_are_given_a_key_have_that_one_and_make_none(tmp_path: Path) -> None:
    environment = program(tmp_path, 'echo "$@"')
    (tmp_path / "secret").write_text("shared\n")
    environment[server.GIVEN_KEY_VARIABLE] = str(tmp_path / "secret")
    served = subprocess.run(
        [sys.executable, "-c", SERVE.format(grace_s=60)],
        cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert served.stdout.count("=shared") == 2
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("content", [None, "\n"], ids=["missing", "empty"])
def test_a_key_that_is_given_and_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    monkeypatch.setenv("TRITON_SERVER_VERSION", "2.55.0")
    monkeypatch.setenv(server.GIVEN_KEY_VARIABLE, str(tmp_path / "secret"))
    assert server.main(["serve"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot start tritonserver: ")
    assert str(tmp_path / "secret") in error
    assert error.count("\n") == 1


def test_a_server_is_killed_before_docker_kills_the_container() -> None:
    # `docker stop` waits for 10 s.
    assert server._GRACE_S < 10


@pytest.mark.parametrize(("ending", "code"), [("exit 3", 3), ("kill -SEGV $$", 139)])
def test_a_server_that_ends_by_itself_has_its_exit_code(tmp_path: Path, ending: str, code: int) -> None:
    command = [sys.executable, "-c", SERVE.format(grace_s=60)]
    assert (
        subprocess.run(command, cwd=PROJECT_ROOT, env=program(tmp_path, ending), check=False).returncode
        == code
    )


def test_another_command_is_refused_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["start"]) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_nothing_that_answers_is_not_healthy() -> None:
    assert server.main(["health", "http://127.0.0.1:9/v2/health/ready"]) == 1


def test_what_is_no_web_server_or_no_address_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].sendall(b"no HTTP\r\n"), daemon=True).start()
        assert server.main(["health", f"http://127.0.0.1:{listener.getsockname()[1]}/"]) == 1
    assert server.main(["health", "triton"]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "usage: "), (["backends"], "usage: "), (["/nowhere", "/nowhere", "/nowhere"], "error: ")],
)
def test_backends_that_cannot_be_added_are_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backends.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(says)
    assert error.count("\n") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_a_client_without_its_owners_folder_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(owner.VARIABLE, "/nowhere")
    assert client.main(["--help"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "/nowhere" in error
    assert error.count("\n") == 1

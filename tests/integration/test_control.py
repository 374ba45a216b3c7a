"""Who may control a server of ours: asked by plain HTTP and by NVIDIA's client, as any local user can."""

import base64
import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from harness.errors import ServerError
from harness.machine import paths
from harness.models.platforms import Platform
from harness.run.config.resolution import resolve
from harness.run.servers import servers
from harness.server import lifecycle
from harness.server.__main__ import main
from harness.server.flags import KEY_HEADER
from harness.triton.address import Address, parse_headers
from harness.triton.client import TritonClient
from tests import small_models

RESTRICTED = "restricted, expecting header"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a server that `tritonserver-up` has started, with one model in its repository."""
    place = tmp_path_factory.mktemp("control")
    version = place / "models" / "small" / "1"
    version.mkdir(parents=True)
    small_models.write(Platform.ONNXRUNTIME, version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(small_models.config_text(Platform.ONNXRUNTIME))
    assert main(["up", "--model-repository", str(place / "models")], place / "state") == 0
    yield place / "state"
    assert main(["down"], place / "state") == 0
    assert not (place / "state" / lifecycle._KEY_FILE).exists()


@pytest.fixture(scope="module")
def info(state: Path) -> lifecycle.ServerInfo:
    found = lifecycle.running(state)
    assert found
    return found


@pytest.fixture(scope="module")
def key(info: lifecycle.ServerInfo) -> str:
    assert info.key_file
    assert info.key_file.stat().st_mode & 0o777 == 0o600
    return info.key_file.read_text()


def ask(info: lifecycle.ServerInfo, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """One HTTP request as everybody can send it: status and text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{info.http_url}/v2/{path}", data, headers)
    try:
        with lifecycle.http_opener.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def program(marker: Path) -> dict[str, Any]:
    """What has a server write and run a model.py of whoever sends it."""
    code = (
        f"open({str(marker)!r}, 'w').close()\nclass TritonPythonModel:\n    def execute(self, r): return []\n"
    )
    config = {"backend": "python", "max_batch_size": 0, "input": [], "output": []}
    file = base64.b64encode(code.encode()).decode()
    return {"parameters": {"config": json.dumps(config), "file:1/model.py": file}}


def test_a_program_is_run_for_nobody_but_who_has_the_key(
    info: lifecycle.ServerInfo, key: str, tmp_path: Path
) -> None:
    marker = tmp_path / "was here"
    load = "repository/models/program/load"
    for headers in ({}, {KEY_HEADER: "guessed"}, {KEY_HEADER: ""}):
        status, text = ask(info, load, program(marker), **headers)
        assert (status, RESTRICTED in text) == (403, True)
        assert not marker.exists()
    ask(info, load, program(marker), **{KEY_HEADER: key})
    assert marker.exists()
    ask(info, "repository/models/program/unload", {}, **{KEY_HEADER: key})


@pytest.mark.parametrize(
    "path",
    [
        *("repository/index", "repository/models/small/load", "repository/models/small/unload"),
        *("systemsharedmemory/region/x/register", "systemsharedmemory/unregister"),
        *("cudasharedmemory/region/x/register", "cudasharedmemory/unregister"),
        *("trace/setting", "models/small/trace/setting", "logging"),
    ],
)
def test_nothing_is_changed_over_http_without_the_key(info: lifecycle.ServerInfo, path: str) -> None:
    status, text = ask(info, path, {})
    assert (status, RESTRICTED in text) == (403, True)


CONTROL: dict[str, Callable[..., object]] = {
    "load": lambda client, **key: client.load_model("small", **key),
    "index": lambda client, **key: client.get_model_repository_index(**key),
    "system shared memory": lambda client, **key: client.get_system_shared_memory_status(**key),
    "cuda shared memory": lambda client, **key: client.get_cuda_shared_memory_status(**key),
    "trace": lambda client, **key: client.update_trace_settings(settings={"trace_rate": "1000"}, **key),
    "logging": lambda client, **key: client.update_log_settings({"log_verbose_level": 0}, **key),
    "unload": lambda client, **key: client.unload_model("small", **key),
}


@pytest.mark.parametrize("call", CONTROL.values(), ids=CONTROL)
def test_nothing_is_changed_over_grpc_without_the_key(
    info: lifecycle.ServerInfo, key: str, call: Callable[..., object]
) -> None:
    with tritonclient.grpc.InferenceServerClient(info.grpc_url) as client:
        with pytest.raises(InferenceServerException, match=RESTRICTED):
            call(client)
        call(client, headers={KEY_HEADER: key})


def test_what_changes_nothing_is_for_everybody(info: lifecycle.ServerInfo) -> None:
    with TritonClient(Address(info.grpc_url, headers=parse_headers(info.headers))) as ours:
        ours.load("small", None)
    with tritonclient.grpc.InferenceServerClient(info.grpc_url) as client:
        assert client.is_server_live()
        assert client.is_model_ready("small")
        assert client.get_server_metadata().name == "triton"
        assert client.get_model_config("small").config.name == "small"
        assert client.get_inference_statistics("small").model_stats[0].name == "small"
        pixels = tritonclient.grpc.InferInput("pixels", [1, 4], "UINT8")
        pixels.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.uint8))
        index = tritonclient.grpc.InferInput("index", [1, 1], "INT64")
        index.set_data_from_numpy(np.array([[0]]))
        answer = client.infer("small", [pixels, index])
        assert answer.as_numpy("doubled").tolist() == [[2, 4, 6, 8]]
    assert ask(info, "health/live")[0] == 200
    assert ask(info, "models/small/stats")[0] == 200


def test_a_client_of_ours_without_the_key_says_what_is_missing(info: lifecycle.ServerInfo) -> None:
    with TritonClient(info.grpc_url) as client, pytest.raises(ServerError, match=KEY_HEADER):
        client.load("small", None)


def test_the_key_is_on_no_command_line_and_in_no_file_that_others_can_read(
    info: lifecycle.ServerInfo, key: str, state: Path
) -> None:
    command_lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command_lines.append(file.read_text(errors="replace"))
    assert any("--http-restricted-api=" in line and "(hidden)" in line for line in command_lines)
    assert not [line for line in command_lines if key in line]
    assert key not in info.log.read_text()
    assert (state / "server.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_cannot_read_the_key(info: lifecycle.ServerInfo, state: Path) -> None:
    for folder in (state, *state.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)  # so that it is not the way that is closed
    for file in (info.key_file, f"/proc/{info.pid}/environ"):
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", file]
        read = subprocess.run(nobody, capture_output=True, text=True, check=False)
        assert (read.returncode, read.stdout) == (1, "")
        assert "Permission denied" in read.stderr


def test_the_command_line_says_how_control_is_had_and_shows_what_is_loaded(
    info: lifecycle.ServerInfo, key: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TritonClient(Address(info.grpc_url, headers=parse_headers(info.headers))) as ours:
        for change, shown in ((ours.unload, "not loaded"), (lambda name: ours.load(name, None), "READY")):
            change("small")
            assert main(["status"], state) == 0
            status = capsys.readouterr().out
            assert f"--header '{KEY_HEADER}: @{info.key_file}'" in status
            assert key not in status
            assert f"small: {shown}\n" in status


def test_a_server_for_others_says_what_they_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    options = ["--model-repository", str(tmp_path / "models"), "--host", "0.0.0.0", "--insecure"]
    try:
        assert main(["up", *options], tmp_path / "state") == 0
        said = capsys.readouterr().out
        info = lifecycle.running(tmp_path / "state")
        assert info
        assert info.key_file is None
        assert "open to whoever reaches it" in said
        assert "no authentication" in said
        assert ask(info, "repository/index", {}) == (200, "[]")
    finally:
        main(["down"], tmp_path / "state")


@pytest.mark.parametrize("is_named", [False, True])
def test_a_run_has_the_key_of_the_server_that_tritonserver_up_has_started(
    info: lifecycle.ServerInfo, is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "running", lambda _state_dir=None: info)
    monkeypatch.setattr(paths, "MODEL_REPOSITORY", info.repository)
    monkeypatch.delenv("TRITON_URL", raising=False)
    options = {"model": "mobilenet", "platform": "onnxruntime"}
    config = resolve(options | ({"url": info.grpc_url} if is_named else {}))
    with servers(config) as ((address,), are_own), TritonClient(address) as client:
        assert not are_own
        client.load("small", None)

"""Somebody else's server: measured as it is, or left as it was found, however a run ends there."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ServerError
from harness.machine import paths
from harness.models import MODELS
from harness.models.model_config import ServerSettings, model_config, to_text
from harness.models.platforms import Platform
from harness.run.serving import ModelLoader
from harness.server import launch, lifecycle
from harness.triton.client import TritonClient

ENTRY = "mobilenet_onnxruntime"
VARIANT = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
MODEL = ("--model", "mobilenet", "--platform", "onnxruntime", "--weights", "seeded")
SHORT = (
    *MODEL,
    "--dataset",
    "synthetic",
    "--count",
    "32",
    "--scenario",
    "Offline",
    "--queries-offline",
    "64",
)
THEIRS = ServerSettings(instances=2, threads=1, max_batch_size=16, max_queue_delay_us=3000)
PROD = "resnet_prod"
"""An entry of another name, whose version 3 is asked for: it has weights of 8 significant bits. There is a
version 4."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two entries of one model: by the name that is ours, and by another one with two versions."""
    subprocess.run([sys.executable, "-m", "converters", *MODEL], cwd=paths.PROJECT_ROOT, check=True)
    folder = tmp_path_factory.mktemp("theirs")
    for name, versions in ((ENTRY, (1,)), (PROD, (3, 4))):
        config = model_config(name, VARIANT, THEIRS)
        if name == PROD:
            config.version_policy.all.SetInParent()
        for version in versions:
            (folder / name / str(version)).mkdir(parents=True)
            file = folder / name / str(version) / "model.onnx"
            shutil.copy(paths.MODEL_REPOSITORY / ENTRY / "1" / "model.onnx", file)
            if version == 3:
                round_weights(file)
        (folder / name / "config.pbtxt").write_text(to_text(config))
    return folder


def round_weights(file: Path) -> None:
    """Cut a model's weights to what bf16 holds of them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32:
            cut = (
                (np.atleast_1d(weights).view(np.uint32) & 0xFFFF0000).view(np.float32).reshape(weights.shape)
            )
            tensor.CopyFrom(numpy_helper.from_array(cut, tensor.name))
    onnx.save(model, file)


@contextlib.contextmanager
def server(repository: Path, state_dir: Path, mode: str) -> Iterator[TritonClient]:
    """A server that nobody has started by our tools, and its client."""
    ours = launch.command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            *(launch, "command"),
            lambda *given, **more: [
                word.replace("--model-control-mode=explicit", f"--model-control-mode={mode}")
                for word in ours(*given, **more)
            ],
        )
        info = lifecycle.start(repository, state_dir=state_dir, die_with_parent=True)
    with TritonClient(info.grpc_url) as client:
        yield client
    assert lifecycle.stop(info, state_dir)


@pytest.fixture(scope="module")
def theirs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonClient]:
    """A server that has both entries loaded, each by its file."""
    with server(repository, tmp_path_factory.mktemp("server"), "explicit") as client:
        for name in (ENTRY, PROD):
            client.load(name, None)
        yield client


def measured(run_harness: Callable, client: TritonClient, folder: Path, *options: object) -> dict[str, Any]:
    """results.json of a short run; what it said is its `stderr`."""
    ended = run_harness(*SHORT, "--url", client.url, "--output", folder, *options)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (file,) = folder.glob("*/results.json")
    return {**json.loads(file.read_text()), "stderr": ended.stderr}


def settings_of(result: dict[str, Any]) -> tuple[int, int, int, int]:
    """Instances, threads of each, largest batch and queue delay, as results.json has them."""
    server = result["server"]["tuning"]["server"]
    return server["instances"], server["threads"], server["max_batch_size"], server["max_queue_delay_us"]


def test_a_loaded_model_is_measured_as_it_is_and_results_say_so(
    run_harness: Callable, theirs: TritonClient, tmp_path: Path
) -> None:
    before = theirs.model_config(ENTRY)
    result = measured(run_harness, theirs, tmp_path, "--threads", 2, "--preferred-batch", "2,4")
    assert theirs.model_config(ENTRY) == before == result["server"]["config"]
    assert settings_of(result) == (2, 1, 16, 3000)
    # A plan has batches of 32.
    assert result["server"]["tuning"]["client_batch"] == 16
    assert max(map(int, result["tests"]["PerformanceOnly"]["statistics"]["executions_by_batch_size"])) <= 16
    assert not result["server"]["is_config_ours"]
    assert result["server"]["not_applied"] == ["--threads 2", "--preferred-batch 2,4"]
    assert "not applied by the server's configuration: --threads 2" in result["stderr"]
    origins = {setting["name"]: setting["origin"] for setting in result["settings"]}
    assert origins["threads"] == "command line: not applied"
    assert origins["server: instances"] == origins["server: threads of each"] == "the server's configuration"
    page = next(tmp_path.glob("*/report.html")).read_text()
    assert "the server&#39;s own; not applied: --threads 2" in page


@pytest.mark.parametrize(
    ("wanted", "settings"),
    [
        ("ours", (1, 1, 8, 0)),
        ("max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 100 }", (2, 1, 4, 100)),
    ],
)
def test_what_is_changed_is_put_back(
    run_harness: Callable,
    theirs: TritonClient,
    tmp_path: Path,
    wanted: str,
    settings: tuple[int, int, int, int],
) -> None:
    before = theirs.model_config(ENTRY)
    if wanted != "ours":
        (tmp_path / "part.pbtxt").write_text(wanted)
        wanted = str(tmp_path / "part.pbtxt")
    options = ("--server-config", wanted, "--max-batchsize", 8, "--threads", 1)
    result = measured(run_harness, theirs, tmp_path / "results", *options)
    assert settings_of(result) == settings
    assert result["server"]["is_config_ours"]
    assert theirs.model_config(ENTRY) == before
    assert not list((paths.STATE_DIR / "borrowed").glob(f"*@port-{theirs.url.rpartition(':')[2]}.json"))


def test_a_model_that_it_has_but_does_not_serve_keeps_its_files_batch_limit(
    run_harness: Callable, theirs: TritonClient, tmp_path: Path
) -> None:
    theirs.unload(ENTRY)
    result = measured(run_harness, theirs, tmp_path, "--threads", 1)
    # A plan has batches of 32, and none of the file's delay.
    assert settings_of(result) == (1, 1, 16, 0)
    assert result["server"]["is_config_ours"]
    assert not theirs.is_model_ready(ENTRY)
    theirs.load(ENTRY, None)


def test_what_a_killed_run_has_left_is_put_right_by_the_next_one(
    run_harness: Callable, theirs: TritonClient, tmp_path: Path
) -> None:
    before = theirs.model_config(ENTRY)
    killed = subprocess.Popen(
        [
            *(sys.executable, "-m", "harness", *MODEL, "--dataset", "synthetic", "--count", "32"),
            *("--time", "60", "--server-config", "ours", "--url", theirs.url, "--output", str(tmp_path)),
        ],
        cwd=paths.PROJECT_ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert killed.stderr is not None
    for line in killed.stderr:
        if "calibration" in line:
            break
    killed.kill()
    killed.communicate(timeout=60)
    assert theirs.model_config(ENTRY)["max_batch_size"] == 1
    assert [name for name in theirs.shared_memory_regions() if f"-{killed.pid}-" in name]
    result = measured(run_harness, theirs, tmp_path / "next")
    assert "put back as it was found" in result["stderr"]
    assert settings_of(result) == (2, 1, 16, 3000)
    assert theirs.model_config(ENTRY) == before
    assert theirs.shared_memory_regions() == []


def test_a_twin_of_another_name_is_asked_in_the_version_that_was_named_and_may_be_less_exact(
    run_harness: Callable, theirs: TritonClient, tmp_path: Path
) -> None:
    # The one that Triton would choose.
    latest = theirs.statistics(f"{PROD}/4")
    options = ("--served-name", PROD, "--served-version", 3, "--tolerance", 0.5)
    result = measured(run_harness, theirs, tmp_path, *options)
    assert result["server"]["entry"] == f"{PROD}/3"
    assert result["args"]["tolerance"] == 0.5
    test = result["tests"]["PerformanceOnly"]
    assert 0 <= test["self_test"]["shortfall"] <= 0.5
    assert test["statistics"]["samples"] == sum(book["counted_samples"] for book in test["books"]) >= 64
    assert theirs.statistics(f"{PROD}/4") == latest == theirs.statistics(PROD)


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_where_the_server_lets_nobody_load_models_what_is_reported_is_what_is_live(
    run_harness: Callable, repository: Path, tmp_path: Path, mode: str
) -> None:
    with server(repository, tmp_path / "server", mode) as client:
        options = ("--server-config", "ours", "--threads", 1)
        result = measured(run_harness, client, tmp_path / "results", *options)
        assert settings_of(result) == (2, 1, 16, 3000)
        assert result["server"]["not_applied"] == ["--threads 1", "--server-config ours"]
        assert client.model_config(ENTRY) == result["server"]["config"]
        loader = ModelLoader(client, "another_name")
        with pytest.raises(ServerError, match=r"has no another_name, it serves .*resnet_prod"):
            loader.set_up(None, VARIANT, THEIRS, is_own=True)

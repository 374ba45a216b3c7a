"""The command line as a user meets it: one line for what is wrong, exit codes, and Ctrl-C."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import cv2
import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from harness.errors import ServerError
from harness.machine import paths
from harness.models import MODELS
from harness.models.model_config import ServerSettings, model_config, to_json
from harness.models.platforms import Platform
from harness.run.mlperf.rounds import Scenario
from harness.run.serving import check_served
from harness.run.telemetry import record
from harness.server import lifecycle
from harness.triton.client import TritonClient

MINIMAL = ("--model", "mobilenet", "--platform", "onnxruntime", "--weights", "seeded")
QUICK = (*MINIMAL, "--dataset", "synthetic", "--count", "32", "--scenario", "Offline")


def error_line(ended: subprocess.CompletedProcess[str]) -> str:
    """What the user reads last; there must be exactly one error line, and no traceback."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return lines[0]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / name), np.full((300, 400, 3), 90, np.uint8))
    (folder / "val_map.txt").write_text("a.jpg 1\nb.jpg 2\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "resnet51", "--platform", "onnxruntime"), "unknown model 'resnet51'"),
        (("--model", "mobilenet", "--platform", "caffe"), "unknown platform 'caffe'"),
        ((*QUICK, "--qps", "0"), "--qps 0 is impossible"),
        ((*QUICK, "--max-batchsize", "100000"), "it takes a whole number above 0, and up to 65536"),
        ((*QUICK, "--output", "/dev/null/here"), "cannot write results to /dev/null/here"),
        ((*QUICK, "--cache", "/dev/full"), "cannot write samples to /dev/full: it is no folder; see --cache"),
        ((*MINIMAL, "--dataset-path", "/no/such/folder"), "/no/such/folder"),
        ((*MINIMAL, "--dataset", "imagenet_mobilenet"), "needs --dataset-path"),
        (
            ("--model", "mobilenet", "--platform", "tflite", "--weights", __file__),
            "cannot be served by tflite",
        ),
        ((*QUICK, "--scenari", "Server"), "unrecognized arguments: --scenari"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(run_harness, arguments, complaint: str) -> None:
    ended = run_harness(*arguments)
    assert complaint in error_line(ended)
    assert ended.returncode == 2


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "b.jpg").write_bytes(b"not an image"), "b.jpg"),
        (lambda folder: (folder / "b.jpg").unlink(), "b.jpg"),
        (lambda folder: (folder / "val_map.txt").write_text("a.jpg one\n"), "val_map.txt:1"),
        (lambda folder: (folder / "val_map.txt").write_text("x.jpg 1\ny.jpg 2\n"), "x.jpg"),
        (lambda folder: (folder / "val_map.txt").write_text(""), "val_map.txt"),
    ],
)
def test_damaged_data_is_named_and_nothing_is_run(run_harness, images: Path, damage, complaint: str) -> None:
    damage(images)
    ended = run_harness(*MINIMAL, "--dataset-path", images)
    assert complaint in error_line(ended)
    assert ended.returncode == 2


@pytest.fixture
def coco(images: Path) -> Path:
    """The same two images, annotated as COCO is."""
    (images / "val_map.txt").unlink()
    (images / "annotations").mkdir()
    write_annotations(images, images=[{"id": 1, "file_name": "a.jpg", "height": 300, "width": 400}])
    return images


def write_annotations(folder: Path, **changes: object) -> None:
    sound: dict[str, object] = {
        "images": [],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 1200, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps({**sound, **changes}))


def cut_off(folder: Path) -> None:
    file = folder / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text()[:-30])


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut_off, "instances_val2017.json"),
        (lambda folder: write_annotations(folder, images=[{"id": 1, "file_name": "a.jpg"}]), "height"),
        (
            lambda folder: write_annotations(
                folder, images=[{"id": 1, "file_name": "gone.jpg", "height": 60, "width": 40}]
            ),
            "gone.jpg",
        ),
        (lambda folder: (folder / "a.jpg").write_bytes(b"not an image"), "a.jpg"),
    ],
)
def test_damaged_annotations_are_named_and_nothing_is_run(
    run_harness, coco: Path, damage, complaint: str
) -> None:
    damage(coco)
    detector = ("--model", "ssd-mobilenet", "--platform", "tensorflow", "--weights", "seeded")
    ended = run_harness(*detector, "--dataset-path", coco)
    assert complaint in error_line(ended)
    assert ended.returncode == 2


def test_no_server_there_is_exit_code_3(run_harness) -> None:
    with socket.socket() as silent:
        # Taken, so that no other test's server can come, and not listened at.
        silent.bind(("127.0.0.1", 0))
        ended = run_harness(*QUICK, "--url", f"127.0.0.1:{silent.getsockname()[1]}")
    assert "no Triton answers at" in error_line(ended)
    assert ended.returncode == 3


def test_the_http_port_instead_of_the_grpc_port_is_exit_code_3(run_harness, repository_server) -> None:
    url = repository_server.http_url.removeprefix("http://")
    ended = run_harness(*QUICK, "--url", url)
    assert "the gRPC port" in error_line(ended)
    assert ended.returncode == 3


class OtherServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks the same protocol, and is not Triton."""

    def ServerMetadata(self, request, context):
        return service_pb2.ServerMetadataResponse(name="another server", version="1")

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)


@pytest.fixture
def other_server() -> Iterator[str]:
    other = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(OtherServer(), other)
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    yield f"127.0.0.1:{port}"
    other.stop(None)


def test_a_server_that_is_not_triton_is_exit_code_3(run_harness, other_server: str) -> None:
    ended = run_harness(*QUICK, "--url", other_server)
    assert "'another server', not a Triton Inference Server" in error_line(ended)
    assert ended.returncode == 3


def test_a_url_that_is_none_is_exit_code_2(run_harness) -> None:
    ended = run_harness(*QUICK, "--url", "nonsense")
    assert "'nonsense' is not HOST:PORT" in error_line(ended)
    assert ended.returncode == 2


def test_a_model_that_cannot_be_run_is_in_the_table_of_the_sweep(
    run_harness, repository_server, tmp_path: Path
) -> None:
    (tmp_path / "part.pbtxt").write_text('backend: "none_such"')
    ended = run_harness(
        *("--all", *QUICK, "--server-config", tmp_path / "part.pbtxt"),
        *("--url", repository_server.grpc_url, "--output", tmp_path),
    )
    assert ended.returncode == 3
    assert ["mobilenet", "onnxruntime", "-", "-", "-", "-", "ERROR"] in map(
        str.split, ended.stdout.splitlines()
    )
    assert "mobilenet on onnxruntime ERROR: " in ended.stdout
    assert "none_such" in ended.stdout


VARIANT = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]


def serve_python_model(info: lifecycle.ServerInfo, name: str, change) -> None:
    """Load a Python model whose configuration was changed; its answers do not matter."""
    config = model_config(name, VARIANT, ServerSettings(max_batch_size=32))
    config.backend, config.platform, config.default_model_filename = "python", "", "model.py"
    del config.model_warmup[:]
    change(config)
    version = info.repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(
        "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
    )
    (version.parent / "config.pbtxt").write_text("")
    with TritonClient(info.grpc_url) as client:
        client.load(name, to_json(config))


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("other-name", lambda c: setattr(c.input[0], "name", "image"), "no input 'input:0', it has"),
        ("other-shape", lambda c: c.input[0].dims.__setitem__(1, 299), r"FP32 \[3, 299, 224\], expected"),
        ("other-dtype", lambda c: setattr(c.output[0], "data_type", 12), "INT64"),
        ("cached", lambda c: setattr(c.response_cache, "enable", True), "response cache"),
    ],
)
def test_another_model_under_the_name_is_found_out(triton, name: str, change, complaint: str) -> None:
    if name == "other-dtype":
        complaint = "expected FP32"
    serve_python_model(triton, name, change)
    with TritonClient(triton.grpc_url) as client, pytest.raises(ServerError, match=complaint) as caught:
        check_served(client, name, VARIANT)
    assert caught.value.exit_code == 3


def test_the_models_own_configuration_passes(triton) -> None:
    # Any height will do, and so will ours.
    serve_python_model(triton, "sound", lambda config: config.input[0].dims.__setitem__(1, -1))
    with TritonClient(triton.grpc_url) as client:
        assert check_served(client, "sound", VARIANT)["max_batch_size"] == 32


@pytest.mark.parametrize("platform", ["onnxruntime", "openvino"])
def test_other_weights_on_the_server_are_found_out_before_the_test(
    run_harness, tmp_path: Path, platform: str
) -> None:
    """The names, shapes and types are right; only the answers are not, whatever they are calculated in."""
    arguments = (*QUICK, "--platform", platform)
    ended = run_harness(*arguments, "--output", tmp_path / "first")
    assert ended.returncode == 0, ended.stderr
    repository = tmp_path / "repository"
    entry = f"mobilenet_{platform}"
    shutil.copytree(paths.MODEL_REPOSITORY / entry, repository / entry)
    import onnx
    from onnx import numpy_helper

    file = repository / entry / "1" / "model.onnx"
    model = onnx.load(file)
    biggest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    scrambled = np.roll(numpy_helper.to_array(biggest), 1, axis=0)
    biggest.CopyFrom(numpy_helper.from_array(scrambled, biggest.name))
    onnx.save(model, file)
    state_dir = tmp_path / "server"
    info = lifecycle.start(repository, state_dir=state_dir, die_with_parent=True)
    ended = run_harness(*arguments, "--url", info.grpc_url, "--output", tmp_path / "second")
    lifecycle.stop(info, state_dir)
    assert ended.returncode == 3
    assert "is not the verified model" in ended.stdout


def marked(mark: str) -> set[int]:
    """Processes that descend from the harness that was started with this mark in its environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def segments(process: subprocess.Popen[str]) -> list[Path]:
    """Shared memory that this harness or its server has."""
    prefixes = [f"mlperf-samples-{process.pid}"]
    state = paths.STATE_DIR / f"server-{process.pid}" / "server.json"
    # Of a run that was killed, any other run removes it.
    with contextlib.suppress(FileNotFoundError):
        prefixes.append(json.loads(state.read_text())["shm_prefix"])
    return [file for prefix in prefixes for file in Path("/dev/shm").glob(f"{prefix}*")]


def start_harness(tmp_path: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments, "--output", str(tmp_path)],
        cwd=paths.PROJECT_ROOT,
        env={**os.environ, "TEST_MARK": str(tmp_path), "TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the harness ended before it said {text!r}")


LONG = (*MINIMAL, "--dataset", "synthetic", "--count", "32", "--time", "300", "--scenario", "SingleStream")


@pytest.fixture(scope="module")
def converted() -> None:
    """The entry that runs here use is there, so that they say that it is up to date."""
    subprocess.run([sys.executable, "-m", "converters", *MINIMAL], cwd=paths.PROJECT_ROOT, check=True)


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize(
    "moment", ["is up to date", "Triton is ready", "SingleStream PerformanceOnly", "calibration"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, moment: str, number: int) -> None:
    process = start_harness(tmp_path, *LONG)
    wait_for(process, moment)
    time.sleep(0.3)
    assert process.pid in marked(str(tmp_path))
    assert segments(process) or moment in ("is up to date", "Triton is ready")
    process.send_signal(number)
    # LONG is of five minutes.
    process.communicate(timeout=90)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    deadline = time.monotonic() + 90
    while (marked(str(tmp_path)) or segments(process)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not marked(str(tmp_path))
    assert not segments(process)


def test_a_server_of_our_own_that_dies_is_reported_and_its_log_kept(tmp_path: Path) -> None:
    process = start_harness(tmp_path, *LONG)
    wait_for(process, "calibration")
    state_dir = paths.STATE_DIR / f"server-{process.pid}"
    os.kill(json.loads((state_dir / "server.json").read_text())["pid"], signal.SIGSEGV)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 3
    assert f"the Triton server died during the run; the end of {state_dir / 'server.log'}:" in said
    assert "tritonserver has ended, killed by SIGSEGV" in said
    assert not segments(process)
    shutil.rmtree(state_dir, ignore_errors=True)  # unless another run has


def read_until(terminal: int, text: bytes) -> bytes:
    """What a terminal shows until it shows `text`."""
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 4096)
    return shown


def test_a_test_shows_how_far_it_is_and_gives_the_terminal_back_on_ctrl_c(
    tmp_path: Path, repository_server
) -> None:
    terminal, stderr = pty.openpty()
    process = start_harness(tmp_path, *LONG, "--url", repository_server.grpc_url, stderr=stderr)
    os.close(stderr)
    shown = read_until(terminal, b"calibration: a query takes")
    # The worker's process writes over the bar that the runner's has drawn.
    assert shown.rsplit(b"\x1b[2K", 1)[1].startswith(b"calibration: ")
    shown += read_until(terminal, b"left")
    assert re.search(rb"SingleStream: \d+%, \d+ samples, 1 in flight, \d+\.\d/s, \d:\d\d left", shown)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # when nobody holds the other end any more
        while True:
            shown += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait(timeout=90) == 130
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") > 0
    assert shown.endswith(b"\x1b[2Kinterrupted\r\n")


def test_results_have_the_references_keys_and_ours(run_harness, repository_server, tmp_path: Path) -> None:
    ended = run_harness(
        *(*MINIMAL, "--dataset", "synthetic", "--count", "32", "--time", "2", "--accuracy"),
        *("--scenario", "Offline,SingleStream", "--transport", "grpc"),
        *("--url", repository_server.grpc_url, "--metrics-url", repository_server.metrics_url),
        *("--output", tmp_path, "--label", "one of two", "--anonymous"),
    )
    assert ended.returncode in (0, 1), ended.stderr
    assert f"All of them on one page: {tmp_path / 'index.html'}\n" in ended.stdout
    lines = [line for line in ended.stdout.splitlines() if line.startswith("TestScenario.")]
    assert [line.split()[0] for line in lines] == ["TestScenario.Offline", "TestScenario.SingleStream"]
    assert "acc=100.000%" in lines[0]
    verdicts, invocations = [], []
    for scenario in (Scenario.OFFLINE, Scenario.SINGLE_STREAM):
        (folder,) = tmp_path.glob(f"*_{scenario}")
        result = json.loads((folder / "results.json").read_text())
        assert {"runtime", "version", "time", "args", "cmdline"} <= set(result)
        assert {
            "took",
            "mean",
            "percentiles",
            "qps",
            "count",
            "good_items",
            "total_items",
            "accuracy",
        } == set(result[f"TestScenario.{scenario}"])
        # VALID, unless the machine had more to give than just before the test, or next to nothing.
        busy = re.compile(r"it (ran|ended) |\d+ queries are too few")
        assert [reason for reason in result["reasons"] if not busy.match(reason)] == []
        assert (result["verdict"] == "VALID") == (not result["reasons"])
        verdicts.append(result["verdict"])
        assert result["kind"] == "quick"
        assert "synthetic images" in result["deviations"]
        test = result["tests"]["PerformanceOnly"]
        assert test["transport"] == "grpc"
        assert test["statistics"]["samples"] >= result[f"TestScenario.{scenario}"]["count"]
        (book,) = test["books"]
        assert book["answered_samples"] == book["counted_samples"] == test["statistics"]["samples"]
        assert result["server"]["is_on_this_machine"] is True
        (telemetry,) = test["telemetry"]
        assert (telemetry["source"], telemetry["missing"]) == (repository_server.metrics_url, "")
        assert telemetry["readings"] >= 1
        assert 0 < telemetry["cpu"]["mean"] <= telemetry["cpu"]["most"] <= 1
        assert 0 < telemetry["memory_used_bytes"]["most"] <= telemetry["memory_total_bytes"]
        assert telemetry["pending"]["most"] >= 0
        assert telemetry["gpus"] == []
        (course,) = record.load(folder / "performance" / "run_1")
        assert len(course.at_s) == telemetry["readings"]
        for name in ("summary.txt", "detail.txt", "accuracy.json"):
            assert (folder / "accuracy" / f"mlperf_log_{name}").stat().st_size > 0
            assert (folder / "performance" / "run_1" / f"mlperf_log_{name}").exists()
        settings = {setting["name"]: setting for setting in result["settings"]}
        assert settings["scenario"]["origin"] == "command line"
        assert settings["transport"] == {
            "name": "transport",
            "value": "grpc",
            "origin": "command line",
            "of": "request",
            "is_given": True,
        }
        assert settings["max-batchsize"]["is_given"] is False
        # The server is found by its port, so that its work is not taken for that of others.
        load = test["load"]
        assert load["why_unknown"] == ""
        assert load["others"] >= 0
        assert load["ours"] > 0
        assert len(load["series"]["ours"]) == len(load["series"]["others"]) >= 1
        assert result["others_before"] is None or result["others_before"] >= 0
        assert (result["environment"]["host"], result["args"]["label"]) == (None, "one of two")
        page = (folder / "report.html").read_text()
        assert 'href="../index.html"' in page
        (other,) = (one for one in tmp_path.glob("*_*") if one != folder)
        assert f'href="../{other.name}/report.html"' in page
        invocations.append(result["invocation"])
        assert settings["shortest duration, s"]["value"] == 2.0
    assert len(set(invocations)) == 1
    assert ended.returncode == ("INVALID" in verdicts)


def test_each_bound_of_server_is_tried_and_one_that_is_not_kept_is_exit_code_1(
    run_harness, repository_server, tmp_path: Path
) -> None:
    file, part = tmp_path / "results.json", tmp_path / "part.pbtxt"
    part.write_text("optimization { cuda { graphs: true } } dynamic_batching { preserve_ordering: true }")
    ended = run_harness(
        *(*QUICK, "--scenario", "Server", "--qps", "1000", "--max-latency", "0.0001,0.0002", "--time", "20"),
        # What is under way is waited for.
        *("--in-flight", "8"),
        *("--server-config", part, "--instances", 3, "--queue-delay", 200, "--preferred-batch", "2,4"),
        *("--url", repository_server.grpc_url, "--output", file, "--quiet"),
    )
    assert ended.returncode == 1, ended.stderr
    # What LoadGen would call INVALID is not asked to its end.
    assert "over the bound of 0.10 ms" in ended.stdout
    assert "over the bound of 0.20 ms" in ended.stdout
    assert "calibration" not in ended.stderr
    together = json.loads(file.read_text())
    assert {"runtime", "version", "time", "args", "cmdline"} < set(together)
    for bound in ("0.0001", "0.0002"):
        entry = together[f"TestScenario.Server-{bound}"]
        assert entry["verdict"] == "INVALID"
        assert 0 < entry["count"] < 20_000
        result = json.loads((Path(entry["folder"]) / "results.json").read_text())
        assert (result["metric"], result["tests"]["PerformanceOnly"]["cut_p99_ns"] > 0) == (None, True)
        assert "ended early" in (Path(entry["folder"]) / "report.html").read_text()
        config = result["server"]["config"]
        assert config["optimization"]["cuda"] == {"graphs": True}
        assert config["instance_group"][0]["count"] == 3
        assert config["dynamic_batching"] == {
            "preserve_ordering": True,
            "max_queue_delay_microseconds": "200",
            "preferred_batch_size": [2, 4],
        }
        shutil.rmtree(entry["folder"])

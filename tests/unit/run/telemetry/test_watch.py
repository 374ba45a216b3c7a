"""Metrics are read while a test runs, and what is missing is said."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run.telemetry import record, watch
from harness.run.telemetry.nvml import Nvml, Unavailable
from harness.triton.address import Address
from tests.gpu_metrics import FIRST, SECOND, gpu_metrics

MODEL = "resnet50_onnxruntime"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(gpu_metrics(energy_j=100.0 * self.server.asked).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    monkeypatch.setattr(watch, "is_on_this_host", lambda _: True)
    monkeypatch.setattr(watch, "_EVERY_S", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(server: http.server.HTTPServer) -> Address:
    return Address("a:8001", metrics=f"http://127.0.0.1:{server.server_address[1]}/metrics")


def wait_for(server: http.server.HTTPServer, asked: int) -> None:
    deadline = time.monotonic() + 60
    while server.asked < asked and time.monotonic() < deadline:
        time.sleep(0.005)


class Known(Nvml):
    def clocks_mhz(self) -> dict[str, float]:
        return {FIRST: 1755.0}


def test_each_server_is_read_until_the_test_ends_and_so_are_the_clocks_of_this_machine(
    metrics: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nvml, "open", lambda: Known(None, {}))
    with watch.watching([address(metrics), address(metrics)], f"{MODEL}/2") as watched:
        began = time.monotonic()
        wait_for(metrics, 4)
        watched.test_began(time.monotonic() - began)
        # Only the first counts.
        watched.test_began(0.0)
        wait_for(metrics, 20)
        test_s = time.monotonic() - began
    found = watched.result(test_s, tmp_path)
    asked = metrics.asked
    assert [one.url for one in found] == ["a:8001", "a:8001"]
    for one in found:
        assert (one.missing, one.nvml) == ("", "")
        assert one.readings >= 3
        assert one.pending.mean == 8.0
        assert [gpu.uuid for gpu in one.gpus] == [FIRST, SECOND]
        assert [gpu.clock_mhz and gpu.clock_mhz.mean for gpu in one.gpus] == [1755.0, None]
        assert record.energy_j([one]) > 0
    courses = record.load(tmp_path)
    assert [len(course.at_s) >= 3 for course in courses] == [True, True]
    # Nobody reads any more.
    time.sleep(0.1)
    assert metrics.asked == asked


def test_without_nvml_gpus_have_no_clocks_and_the_reason_is_said(
    metrics: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> Nvml:
        raise Unavailable("the package nvidia-ml-py is not installed")

    monkeypatch.setattr(Nvml, "open", fails)
    with watch.watching([address(metrics)], MODEL) as watched:
        wait_for(metrics, 2)
    # A test that nobody saw begin is taken for the last moment.
    (found,) = watched.result(0.005, tmp_path)
    assert found.nvml == "the package nvidia-ml-py is not installed"
    assert [gpu.clock_mhz for gpu in found.gpus] == [None, None]


def test_where_there_are_no_metrics_the_reason_is_said_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_on_this_host", lambda _: False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/metrics"
        with watch.watching([Address("a:8001", metrics=url), Address("unix:/run/b")], MODEL) as watched:
            pass
        refused, unknown = watched.result(1.0, tmp_path)
    assert refused.missing == f"no metrics at {url} (connection refused): see --metrics-url"
    assert "say it with --metrics-url" in unknown.missing
    assert list(tmp_path.iterdir()) == []

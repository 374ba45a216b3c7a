"""What a Triton's metrics say, and where they are."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from harness.errors import ServerError
from harness.triton.address import Address
from harness.triton.metrics import endpoint
from harness.triton.metrics.text import Gpu, Metrics, parse
from tests.gpu_metrics import FIRST, SECOND, gpu_metrics


def test_gpus_cpus_and_the_models_queue_are_read() -> None:
    gib = 2**30
    assert parse(gpu_metrics(), "resnet50_onnxruntime") == Metrics(
        cpu=0.25,
        memory_used_bytes=8 * gib,
        memory_total_bytes=1.34e11,
        # Of both versions, and of no other model.
        pending=8.0,
        gpus=(
            Gpu(FIRST, 0.9, 1 * gib, 85520809984, 300.5, 1000.0),
            Gpu(SECOND, 0.7, 2 * gib, 85520809984, 150.25, 500.0),
        ),
    )


@pytest.mark.parametrize("text", ["", "<html>nv_cpu_utilization 0.5</html>", "nv_cpu_utilization many\n"])
def test_what_is_not_told_is_none(text: str) -> None:
    assert parse(text, "resnet50_onnxruntime") == Metrics()


def test_a_figure_that_is_none_is_not_told() -> None:
    row = f'nv_gpu_utilization{{gpu_uuid="{FIRST}"}} '
    text = gpu_metrics().replace(f"{row}0.9", f"{row}NaN")
    assert {gpu.uuid: gpu.utilisation for gpu in parse(text).gpus} == {FIRST: None, SECOND: 0.7}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("triton.lab:8001"), "http://triton.lab:8002/metrics"),
        (Address("[::1]:9000"), "http://[::1]:9001/metrics"),
        (Address("triton.lab:8001", found="10.0.0.7:8001"), "http://10.0.0.7:8002/metrics"),
        (Address("dns:///triton.lab:8001"), "http://triton.lab:8002/metrics"),
        (Address("unix:/run/triton"), ""),
        (Address("a:1", metrics="https://b/m"), "https://b/m"),
    ],
)
def test_metrics_are_on_the_port_after_grpcs_unless_it_is_said(address: Address, url: str) -> None:
    assert address.metrics_url == url


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(gpu_metrics().encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_metrics_are_read_whatever_proxy_is_set(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert endpoint.read(f"{served}/metrics") == gpu_metrics()


def test_why_there_are_none_is_said_in_one_line(served: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        nobody = f"http://127.0.0.1:{silent.getsockname()[1]}/metrics"
        for url, why in (
            (nobody, r"\(connection refused\): see --metrics-url"),
            (f"{served}/other", r"\(not found\)"),
            ("http://127.0.0.1:70000/metrics", "see --metrics-url"),
            ("", "say it with --metrics-url"),
        ):
            with pytest.raises(ServerError, match=why) as caught:
                endpoint.read(url)
            assert "\n" not in str(caught.value)

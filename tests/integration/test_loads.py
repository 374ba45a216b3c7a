"""A server that lives long: many loads and unloads, some of which fail, leave nothing in it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from harness.machine.kernel import SHM_DIR
from harness.server import lifecycle
from tests.integration.test_server import wait_until

_AT_ONCE = 5
_CONFIG = """
backend: "python"
input { name: "IN" data_type: TYPE_INT64 dims: [1] }
output { name: "OUT" data_type: TYPE_INT64 dims: [1] }
instance_group { kind: KIND_CPU }
"""
_MODEL = """
import os
class TritonPythonModel:
    def initialize(self, args):
        {}
    def execute(self, requests):
        return []
"""
_WAYS = ["pass", "pass", "pass", "raise RuntimeError('no weights')", "os._exit(3)"]
"""What the models do while they are loaded."""
_POOL_THREADS = 2
"""So far gRPC's own pool in Triton may grow on busy cores; threads that models leave would be five a turn."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[lifecycle.ServerInfo]:
    repository = tmp_path / "models"
    for number, way in enumerate(_WAYS):
        version = repository / f"model{number}" / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL.format(way))
        (version.parent / "config.pbtxt").write_text(_CONFIG)
    info = lifecycle.start(repository, state_dir=tmp_path / "state", die_with_parent=True)
    yield info
    assert lifecycle.stop(info, tmp_path / "state")


def regions(info: lifecycle.ServerInfo) -> list[str]:
    return [file.name for file in SHM_DIR.glob(f"{info.shm_prefix}*") if not file.name.endswith("_lock")]


def load_and_unload(info: lifecycle.ServerInfo, number: int) -> bool:
    """Whether the model could be loaded."""
    with tritonclient.grpc.InferenceServerClient(info.grpc_url) as client:
        try:
            client.load_model(f"model{number}")
        except InferenceServerException:
            return False
        client.unload_model(f"model{number}")
        return True


@pytest.mark.parametrize("loads", [10, pytest.param(100, marks=pytest.mark.nightly)])
def test_loads_and_unloads_leave_no_region_no_process_and_no_descriptor(
    server: lifecycle.ServerInfo, loads: int
) -> None:
    triton = psutil.Process(server.pid)
    left = []
    for _ in range(loads // _AT_ONCE):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            loaded = pool.map(lambda number: load_and_unload(server, number), range(_AT_ONCE))
            assert list(loaded) == [way == "pass" for way in _WAYS]
        # Triton unloads after it has answered.
        assert wait_until(lambda: not regions(server) and not triton.children(), 60), regions(server)
        left.append((triton.num_fds(), triton.num_threads()))
    # Descriptors and threads; the first turn makes what Triton keeps.
    assert left[-1][0] <= left[0][0], left
    assert left[-1][1] <= left[0][1] + _POOL_THREADS, left

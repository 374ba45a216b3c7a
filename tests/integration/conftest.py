"""A real tritonserver for the integration tests: the embedded one, on free ports. Nothing here skips."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from harness.machine import paths
from harness.server import lifecycle

AddModel = Callable[..., str]


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.ServerInfo]:
    """A running server; `triton.repository` is its model repository, empty at first."""
    repository = tmp_path_factory.mktemp("model_repository")
    state_dir = tmp_path_factory.mktemp("server")
    info = lifecycle.start(repository, state_dir=state_dir, die_with_parent=True)
    yield info
    assert lifecycle.stop(info, state_dir), (
        f"the server died during the tests; {lifecycle.log_tail(state_dir)}"
    )


@pytest.fixture(scope="session")
def client(triton: lifecycle.ServerInfo) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    """NVIDIA's own client of that server."""
    with tritonclient.grpc.InferenceServerClient(triton.grpc_url) as connection:
        yield connection


@pytest.fixture
def add_model(
    triton: lifecycle.ServerInfo, client: tritonclient.grpc.InferenceServerClient
) -> Iterator[AddModel]:
    """Add and load an entry: `add_model(name, config_text, filename, write, load=True) -> name`.

    `write` makes the model's file or folder at the path it is given. Entries go when the test ends.
    """
    added: list[str] = []

    def add(
        name: str, config: str, filename: str, write: Callable[[Path], object], *, load: bool = True
    ) -> str:
        version = triton.repository / name / "1"
        version.mkdir(parents=True)
        added.append(name)
        write(version / filename)
        (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
        if load:
            client.load_model(name)
        return name

    yield add
    for name in added:
        _remove(triton, client, name)


def _remove(triton: lifecycle.ServerInfo, client: tritonclient.grpc.InferenceServerClient, name: str) -> None:
    with contextlib.suppress(InferenceServerException):  # a load that was meant to fail
        client.unload_model(name)
    deadline = time.monotonic() + 30
    while client.is_model_ready(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(triton.repository / name)


@pytest.fixture(scope="session")
def repository_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.ServerInfo]:
    """A running server on the project's own model repository, without what tests add to that for good."""
    before = set(paths.MODEL_REPOSITORY.iterdir())
    state_dir = tmp_path_factory.mktemp("repository-server")
    info = lifecycle.start(paths.MODEL_REPOSITORY, state_dir=state_dir, die_with_parent=True)
    yield info
    assert lifecycle.stop(info, state_dir), (
        f"the server died during the tests; {lifecycle.log_tail(state_dir)}"
    )
    for entry in set(paths.MODEL_REPOSITORY.iterdir()) - before:
        shutil.rmtree(entry)


@pytest.fixture
def run_harness() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, as a user runs it: `run_harness("--model", …, timeout=500)`."""

    def run(*arguments: object, timeout: float = 500) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness", *map(str, arguments)],
            cwd=paths.PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run

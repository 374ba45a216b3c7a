"""A real tritonserver for the integration tests: the embedded one, on free ports. Nothing here skips.

House rules, as `./run.sh test` runs two files beside each other, in processes of their own, on busy cores:
- Ports are free ones, state folders the test's own; a server is this process's, or the test's.
- The project's model repository, weights and caches are everybody's. What is missing is made by the command
  line, which locks; nobody changes or removes the entry of a named model. Other entries are named after their
  file: take it from `own_weights`.
- Of what may be left behind (processes, /dev/shm, .state), a test looks for its own: by pid, prefix or mark.
- No claim is about seconds. A wait has a limit that only what hangs will reach, and what must end early is
  told from a test that would last far longer than that limit.
- Which pairs of a model and a platform are for every change, `tests.pairs` says; the others are `nightly`.
"""

import contextlib
import os
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

LONGEST = (
    "test_matrix",
    "test_convert",
    "test_own_files",
    "test_backends",
    "test_real_weights",
    "test_run",
    "test_bench",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: what is begun last is short, and both workers end together."""

    def rank(item: pytest.Item) -> int:
        name = item.path.stem
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)


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
    """A running server on the project's own model repository."""
    state_dir = tmp_path_factory.mktemp("repository-server")
    info = lifecycle.start(paths.MODEL_REPOSITORY, state_dir=state_dir, die_with_parent=True)
    yield info
    assert lifecycle.stop(info, state_dir), (
        f"the server died during the tests; {lifecycle.log_tail(state_dir)}"
    )


@pytest.fixture(scope="session")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Path]]:
    """`own_weights(file)`: the same file, under a name by which the project's repository has nothing else.

    The entries that are made from it go when the session ends.
    """
    folder, mark = tmp_path_factory.mktemp("weights"), f"_of-test-{os.getpid()}"

    def named(file: Path) -> Path:
        link = folder / f"{file.stem}{mark}{file.suffix}"
        if not link.exists():
            link.symlink_to(file)
        return link

    yield named
    for entry in paths.MODEL_REPOSITORY.glob(f"*{mark}_*"):
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


_TABLES = {
    "fault": "faults: case, seconds to the end, result",
    "case": "inputs that showed a fault: case, before, after, by the framework alone, wanted",
}
"""By the property in which a test records a row."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables, of the cases that were run."""
    reports = [report for group in ("passed", "failed") for report in terminalreporter.stats.get(group, ())]
    for table, title in _TABLES.items():
        rows = [row for report in reports for name, row in report.user_properties if name == table]
        if rows:
            terminalreporter.section(title)
        for row in sorted(rows) if table == "case" else rows:
            terminalreporter.line("\t".join(row))

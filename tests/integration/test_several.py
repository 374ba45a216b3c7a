"""Several servers and several client processes: each sample is answered once, and everyone has a share."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.machine import paths
from harness.run.mlperf import logs
from harness.server import launch, lifecycle
from harness.triton.client import TritonClient
from tests.integration.null_harness import add_null_entry
from tests.network import dns_server, new_namespace

ENTRY = "mobilenet_onnxruntime"
SAMPLES = 48
OURS = ("203.0.113.1", "203.0.113.2", "203.0.113.3")
THEIRS, NAME = "203.0.113.4", "triton.test"
"""RFC 5737: addresses for documentation; RFC 6761: a name that there is nowhere else."""


@contextlib.contextmanager
def started(repository: Path, state_dir: Path, *flags: str, **more: Any) -> Iterator[lifecycle.ServerInfo]:
    """A server with more flags than ours has."""
    command = launch.command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "command", lambda *given, **named: [*command(*given, **named), *flags])
        info = lifecycle.start(repository, state_dir=state_dir, die_with_parent=True, **more)
    yield info
    lifecycle.stop(info, state_dir)


@pytest.fixture(scope="module")
def second_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[lifecycle.ServerInfo, bool]]:
    """Another server, and whether it maps our memory: what is far cannot."""
    flags = () if request.param else ("--grpc-restricted-protocol=shared-memory:key=nobody-has-it",)
    with started(paths.MODEL_REPOSITORY, tmp_path_factory.mktemp("second"), *flags) as info:
        yield info, request.param


@pytest.mark.parametrize(
    ("second_server", "options"),
    [
        (True, ()),
        (False, ()),
        (False, ("--client-processes", 2)),
        (True, ("--client-processes", 2, "--transport", "grpc")),
    ],
    indirect=["second_server"],
)
def test_two_servers_share_the_samples(
    run_harness: Callable,
    repository_server: lifecycle.ServerInfo,
    second_server: tuple[lifecycle.ServerInfo, bool],
    tmp_path: Path,
    options: tuple[object, ...],
) -> None:
    second, is_near = second_server
    infos = (repository_server, second)
    with TritonClient(infos[0].grpc_url) as one, TritonClient(infos[1].grpc_url) as other:
        ended = run_harness(
            *("--model", "mobilenet", "--platform", "onnxruntime", "--scenario", "Server,Offline"),
            *("--mode", "Accuracy", "--count", SAMPLES, "--max-batchsize", 8),
            *("--output", tmp_path / "results", "--url", ",".join(info.grpc_url for info in infos), *options),
        )
        assert ended.returncode == 0, ended.stderr
        for client in (one, other):
            # Left as they were found: without the model.
            assert not client.is_model_ready(ENTRY)
    near, far = ("grpc", "grpc") if "grpc" in options else ("shm", "shm" if is_near else "grpc")
    for path in (tmp_path / "results").glob("*/results.json"):
        result = json.loads(path.read_text())
        assert result["accuracy"]["value"] == 1.0
        assert result["server"]["urls"] == [info.grpc_url for info in infos]
        test = result["tests"]["AccuracyOnly"]
        books, shares = test["books"], test["shares"]
        assert [book["url"] for book in books] == result["server"]["urls"]
        assert test["statistics"]["samples"] == sum(book["counted_samples"] for book in books) == SAMPLES
        assert min(book["counted_samples"] for book in books) > 0
        assert all(book["counted_samples"] == book["answered_samples"] for book in books)
        assert [share["transport"] for share in shares] == [near, far]
        assert [share["statistics"]["samples"] for share in shares] == [
            book["counted_samples"] for book in books
        ]
    assert len(list((tmp_path / "results").glob("*/results.json"))) == 2


def test_servers_that_are_named_twice_or_that_the_processes_cannot_share_are_refused(
    run_harness: Callable,
) -> None:
    common = ("--model", "mobilenet", "--platform", "onnxruntime")
    twice = run_harness(*common, "--url", "a:1,a:1")
    assert (twice.returncode, twice.stderr) == (2, "error: --url names one server twice: a:1 and a:1\n")
    for urls, processes, servers in (("a:1,b:1,c:1", 2, 3), ("a:1,b:1", 3, 2)):
        ended = run_harness(*common, "--url", urls, "--client-processes", processes)
        assert ended.returncode == 2
        assert f"{processes} is impossible with {servers} servers" in ended.stderr


@contextlib.contextmanager
def three_servers(folder: Path, repository: Path) -> Iterator[list[lifecycle.ServerInfo]]:
    """Three, each at an address of its own, and all at one port."""
    with contextlib.ExitStack() as stack:
        infos = [
            stack.enter_context(started(repository, folder / host, host=host, ports=(18000, 18001, 18002)))
            for host in OURS
        ]
        for info in infos:
            # As on servers that others use.
            with TritonClient(info.grpc_url) as client:
                client.load("null_model", None)
        yield infos


def test_three_servers_behind_one_name_are_all_asked_and_the_end_of_one_ends_the_run(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    entry = add_null_entry(repository)
    url = f"dns:///{NAME}:18001"
    with (
        new_namespace(OURS, THEIRS, nameserver=OURS[0]) as namespace,
        dns_server(OURS[0], {NAME: OURS}),
        three_servers(tmp_path, repository) as infos,
    ):

        def start(folder: str, url: str, seconds: int, *options: str) -> subprocess.Popen[str]:
            # The model answers in no time: the bound is not to be a matter of the machine's load.
            words = (
                "--model",
                "mobilenet",
                "--platform",
                "onnxruntime",
                "--max-batchsize",
                "1",
                "--url",
                url,
            )
            rate = ("--scenario", "Server", "--qps", "200", "--max-latency", "5", "--time", str(seconds))
            module = ("-m", "tests.integration.null_harness", str(entry), "30")
            command = [*namespace.inside, sys.executable, *module, *words, *rate, *options]
            return subprocess.Popen(
                [*command, "--output", str(tmp_path / folder)],
                cwd=paths.PROJECT_ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        def end(process: subprocess.Popen[str], exit_code: int) -> str:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == exit_code, said
            assert "Traceback" not in said
            return said

        said = end(start("all", url, 2, "--client-processes", "3"), 0)
        assert re.search(r"balance: 3 servers answered 3\d\.\d% to 3\d\.\d% of the samples each", said)
        (results,) = (tmp_path / "all").glob("*/results.json")
        result = json.loads(results.read_text())
        assert result["args"]["urls"] == [url]
        assert result["server"]["urls"] == [f"{host}:18001" for host in OURS]
        for book in result["tests"]["PerformanceOnly"]["books"]:
            assert book["counted_samples"] == book["answered_samples"] > 0

        for wrong, complaint in (
            ("dns:///nobody.test:18001", "--url dns:///nobody.test:18001: nobody.test has no address ("),
            (
                f"{url},{OURS[1]}:18001",
                f"--url names one server twice: {url} and {OURS[1]}:18001 are both at",
            ),
        ):
            assert end(start("refused", wrong, 2), 2).splitlines()[-1].startswith(f"error: {complaint}")

        with TritonClient(infos[2].grpc_url) as client:
            before = client.model_config("null_model")
            batching = {**before["dynamic_batching"], "max_queue_delay_microseconds": "5"}
            client.load("null_model", json.dumps({**before, "dynamic_batching": batching}))
            complaint = (
                "error: the servers of a run must be alike: null_model has another dynamic_batching at "
            )
            assert end(start("refused", url, 2), 2).splitlines()[-1].startswith(complaint)
            client.load("null_model", json.dumps(before))

        dying = start("dying", url, 600)
        while not list((tmp_path / "dying").glob(f"*/performance/run_1/{logs.DETAIL_LOG}")):
            assert dying.poll() is None, dying.communicate()[0]
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(infos[1].pid, signal.SIGKILL)
        assert f"(of the server at {OURS[1]}:18001)" in end(dying, 3)
        gone = end(start("gone", url, 2), 3).splitlines()[-1]
        assert gone.startswith(f"error: no Triton answers at {OURS[1]}:18001 (")

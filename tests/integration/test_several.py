"""Several servers and several client processes: each sample is answered once, and everyone has a share."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.machine import paths
from harness.run.mlperf import logs
from harness.server import launch, lifecycle
from harness.triton.client import TritonClient
from tests.certificates import make_authority, make_certificate
from tests.integration.null_harness import add_null_entry
from tests.network import Namespace, dns_server, new_namespace

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
def servers(
    folder: Path, repository: Path, hosts: Sequence[str], *flags: str
) -> Iterator[list[lifecycle.ServerInfo]]:
    """Each at an address of its own, and all at one port."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                started(repository, folder / host, *flags, host=host, ports=(18000, 18001, 18002))
            )
            for host in hosts
        ]


def start_harness(namespace: Namespace, entry: Path, *options: object) -> subprocess.Popen[str]:
    """The command line in that namespace, Server on the model that computes nothing."""
    words = ("--model", "mobilenet", "--platform", "onnxruntime", "--max-batchsize", 1)
    # The model answers in no time: the bound is not to be a matter of the machine's load.
    rate = ("--scenario", "Server", "--qps", 200, "--max-latency", "5s")
    module = ("-m", "tests.integration.null_harness", entry, 30)
    return subprocess.Popen(
        list(map(str, (*namespace.inside, sys.executable, *module, *words, *rate, *options))),
        cwd=paths.PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(process: subprocess.Popen[str], exit_code: int) -> str:
    """What it said, once it has ended so."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == exit_code, said
    assert "Traceback" not in said
    return said


def smallest_share(said: str, count: int) -> float:
    """Of so many servers, in percent, as the line of balance has it."""
    found = re.search(rf"balance: {count} servers answered ([\d.]+)% to [\d.]+% of the samples each", said)
    assert found, said
    return float(found[1])


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
        servers(tmp_path, repository, OURS) as infos,
    ):
        for info in infos:
            # As on servers that others use.
            with TritonClient(info.grpc_url) as client:
                client.load("null_model", None)

        def start(folder: str, url: str, seconds: int, *options: object) -> subprocess.Popen[str]:
            where = ("--url", url, "--time", seconds, "--output", tmp_path / folder)
            return start_harness(namespace, entry, *where, *options)

        said = end_of(start("all", url, 2, "--client-processes", 3), 0)
        assert smallest_share(said, 3) > 30
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
            assert end_of(start("refused", wrong, 2), 2).splitlines()[-1].startswith(f"error: {complaint}")

        with TritonClient(infos[2].grpc_url) as client:
            before = client.model_config("null_model")
            batching = {**before["dynamic_batching"], "max_queue_delay_microseconds": "5"}
            client.load("null_model", json.dumps({**before, "dynamic_batching": batching}))
            complaint = (
                "error: the servers of a run must be alike: null_model has another dynamic_batching at "
            )
            assert end_of(start("refused", url, 2), 2).splitlines()[-1].startswith(complaint)
            client.load("null_model", json.dumps(before))

        dying = start("dying", url, 600)
        while not list((tmp_path / "dying").glob(f"*/performance/run_1/{logs.DETAIL_LOG}")):
            assert dying.poll() is None, dying.communicate()[0]
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(infos[1].pid, signal.SIGKILL)
        assert f"(of the server at {OURS[1]}:18001)" in end_of(dying, 3)
        gone = end_of(start("gone", url, 2), 3).splitlines()[-1]
        assert gone.startswith(f"error: no Triton answers at {OURS[1]}:18001 (")


def test_servers_behind_one_name_are_asked_over_tls_and_with_a_header(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    entry = add_null_entry(repository)
    make_authority(tmp_path, "authority")
    make_certificate(tmp_path, "server", "authority", host=NAME)
    hosts, key = OURS[1:], "triton-grpc-protocol-key"
    flags = (
        *("--grpc-use-ssl=true", f"--grpc-server-cert={tmp_path}/server.pem"),
        *(f"--grpc-server-key={tmp_path}/server.key", "--grpc-restricted-protocol=inference:key=sesame"),
    )
    with (
        new_namespace(OURS, THEIRS, nameserver=OURS[0]) as namespace,
        dns_server(OURS[0], {NAME: hosts}),
        servers(tmp_path, repository, hosts, *flags),
    ):
        where = ("--url", f"grpcs+dns:///{NAME}:18001", "--tls-ca", tmp_path / "authority.pem")
        who = ("--header", f"{key}: sesame", "--client-processes", 2)
        said = end_of(
            start_harness(namespace, entry, *where, *who, "--time", 2, "--output", tmp_path / "all"), 0
        )
        assert smallest_share(said, 2) > 45
        (results,) = (tmp_path / "all").glob("*/results.json")
        result = json.loads(results.read_text())
        assert result["server"]["rpc"] == "grpcio"
        for host, book in zip(hosts, result["tests"]["PerformanceOnly"]["books"], strict=True):
            assert book["url"] == f"grpcs://{host}:18001"
            assert book["counted_samples"] == book["answered_samples"] > 0
        refused = end_of(
            start_harness(namespace, entry, *where, "--time", 2, "--output", tmp_path / "none"), 3
        )
        assert f"expecting header '{key}'; see --header" in refused

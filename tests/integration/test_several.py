"""Several servers and several client processes: each sample is answered once, and everyone has a share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.machine import paths
from harness.server import lifecycle
from harness.triton.client import TritonClient

ENTRY = "mobilenet_onnxruntime"
SAMPLES = 48


@pytest.fixture
def second_server(tmp_path: Path) -> Iterator[lifecycle.ServerInfo]:
    state_dir = tmp_path / "second"
    info = lifecycle.start(paths.MODEL_REPOSITORY, state_dir=state_dir, die_with_parent=True)
    yield info
    lifecycle.stop(info, state_dir)


@pytest.mark.parametrize(
    "options", [(), ("--client-processes", 2), ("--client-processes", 2, "--transport", "grpc")]
)
def test_two_servers_share_the_samples(
    run_harness: Callable,
    repository_server: lifecycle.ServerInfo,
    second_server: lifecycle.ServerInfo,
    tmp_path: Path,
    options: tuple[object, ...],
) -> None:
    infos = (repository_server, second_server)
    with TritonClient(infos[0].grpc_url) as one, TritonClient(infos[1].grpc_url) as other:
        ended = run_harness(
            *("--model", "mobilenet", "--platform", "onnxruntime", "--scenario", "Server,Offline"),
            *(
                "--mode",
                "Accuracy",
                "--count",
                SAMPLES,
                "--max-batchsize",
                8,
                "--output",
                tmp_path / "results",
            ),
            *("--url", ",".join(info.grpc_url for info in infos), *options),
        )
        assert ended.returncode == 0, ended.stderr
        for client in (one, other):
            # Left as they were found: without the model.
            assert not client.is_model_ready(ENTRY)
    for path in (tmp_path / "results").glob("*/results.json"):
        result = json.loads(path.read_text())
        assert result["accuracy"]["value"] == 1.0
        assert result["server"]["urls"] == [info.grpc_url for info in infos]
        test = result["tests"]["AccuracyOnly"]
        books = test["books"]
        assert [book["url"] for book in books] == result["server"]["urls"]
        assert test["statistics"]["samples"] == sum(book["counted_samples"] for book in books) == SAMPLES
        assert min(book["counted_samples"] for book in books) > 0
        assert all(book["counted_samples"] == book["answered_samples"] for book in books)
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

"""Triton counts what it answered us, server by server, or the test has failed."""

import contextlib
import dataclasses
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from harness.bench.null import entry as null
from harness.models.spec import Variant
from harness.run import runner
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared
from harness.run.worker.books import Answered, Ledger, fault
from harness.run.worker.job import Outcome
from harness.run.worker.qsl import MessageStore
from harness.server import launch, lifecycle
from harness.triton.channel import INFER
from harness.triton.client import TritonClient
from harness.triton.http2 import message_body
from tests.integration.tcp_proxy import Proxy
from tests.plans import any_plan

IN_FLIGHT = 4
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        samples = pb_utils.get_input_tensor_by_name(request, "NULL_INPUT").as_numpy()
        return pb_utils.Tensor("NULL_OUTPUT", np.zeros((len(samples), 1), np.int64))
"""
SEVERAL = "this address is several servers (a load balancer?): name each with --url; "


@pytest.fixture(scope="module")
def prepared(triton: lifecycle.ServerInfo) -> Prepared:
    """A model that computes nothing; unlike the benchmark's, it has an answer to each sample of a request."""
    made = null.write_entry(triton.repository, "counted", side_px=1, in_flight=IN_FLIGHT, transport="auto")
    (made.entry_dir / "1" / "model.py").write_text(MODEL)
    with TritonClient(triton.grpc_url) as client:
        client.load("counted", None)
    return made


@pytest.fixture(scope="module")
def twin(
    triton: lifecycle.ServerInfo, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[lifecycle.ServerInfo]:
    """A second server with the same model."""
    state_dir = tmp_path_factory.mktemp("twin")
    info = lifecycle.start(triton.repository, state_dir=state_dir, die_with_parent=True)
    with TritonClient(info.grpc_url) as client:
        client.load(prepared.manifest.entry, None)
    yield info
    lifecycle.stop(info, state_dir)


RunTest = Callable[..., Outcome]


@pytest.fixture
def run_test(prepared: Prepared, tmp_path: Path) -> RunTest:
    """One test as the harness runs it, some tenths of a second long."""

    def run(
        *clients: TritonClient,
        scenario: Scenario = Scenario.OFFLINE,
        mode: Mode = Mode.PERFORMANCE,
        in_flight: int = IN_FLIGHT,
        **changes: Any,
    ) -> Outcome:
        plan = any_plan(
            scenario,
            mode=mode,
            min_duration_ms=300,
            samples_per_query=8 if scenario == Scenario.MULTI_STREAM else 1,
            # A search ends where it is exceeded.
            server_target_latency_ns=2_000_000,
            target_qps=300.0,
        )
        job = runner.job_of(prepared, clients, plan, null.tuning(in_flight), tmp_path)
        return runner.run_test(dataclasses.replace(job, has_hint=True, **changes), clients)

    return run


def check_books(outcome: Outcome) -> None:
    assert (outcome.error, outcome.failures.requests) == ("", 0)
    assert outcome.statistics is not None
    assert outcome.statistics.samples == sum(book.counted_samples for book in outcome.books)
    for book in outcome.books:
        assert book.counted_samples == book.answered_samples > 0
        assert book.counted_requests == book.answered_requests
        assert (book.cache_hits, book.sent_again) == (0, 0)
        assert 0 < book.executions <= book.counted_requests


@pytest.mark.parametrize(
    ("scenario", "mode", "changes"),
    [
        (Scenario.SINGLE_STREAM, Mode.PERFORMANCE, {"in_flight": 1}),
        (Scenario.MULTI_STREAM, Mode.PERFORMANCE, {"client_batch": 3}),
        (Scenario.SERVER, Mode.PERFORMANCE, {"processes": 2}),
        (Scenario.SERVER, Mode.FIND_PEAK, {}),
        (Scenario.OFFLINE, Mode.ACCURACY, {"client_batch": 3, "processes": 2, "transport": "grpc"}),
    ],
)
def test_the_books_of_every_scenario_are_equal(
    triton: lifecycle.ServerInfo,
    run_test: RunTest,
    scenario: Scenario,
    mode: Mode,
    changes: dict[str, Any],
) -> None:
    with TritonClient(triton.grpc_url) as client:
        check_books(run_test(client, scenario=scenario, mode=mode, **changes))


def test_a_server_that_is_named_twice_is_found_out(triton: lifecycle.ServerInfo, run_test: RunTest) -> None:
    port = triton.grpc_url.rsplit(":", 1)[1]
    with TritonClient(triton.grpc_url) as one, TritonClient(f"localhost:{port}") as other:
        outcome = run_test(one, other)
    assert outcome.error == f"{triton.grpc_url} and localhost:{port} are one server: name it once"


@contextlib.contextmanager
def stranger(url: str, entry: str, variant: Variant) -> Iterator[None]:
    """Somebody who sends single samples, one after the other, for as long as the block takes."""
    store = MessageStore(entry, variant, 1)
    store.fill(np.zeros((1, *variant.input.shape), np.float32), [0])
    is_over = threading.Event()

    def send() -> None:
        with TritonClient(url) as client:
            while not is_over.wait(0.01):
                client.infer_now(store.request(0, 1))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_what_others_ask_of_the_model_meanwhile_fails_the_test(
    triton: lifecycle.ServerInfo, prepared: Prepared, run_test: RunTest
) -> None:
    facts = prepared.manifest
    with TritonClient(triton.grpc_url) as client, stranger(client.url, facts.entry, facts.variant):
        outcome = run_test(client)
    (book,) = outcome.books
    others = book.counted_requests - book.answered_requests
    assert others > 0
    assert outcome.error == (
        f"others used this model meanwhile ({others} requests): {client.url} counted {book.counted_samples} "
        f"samples and answered {book.answered_samples} to us"
    )


def port_of(info: lifecycle.ServerInfo) -> int:
    return int(info.grpc_url.rpartition(":")[2])


@pytest.fixture
def balancer(triton: lifecycle.ServerInfo, twin: lifecycle.ServerInfo) -> Iterator[Proxy]:
    """A load balancer over two servers."""
    with Proxy(port_of(triton), port_of(twin)) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "changes",
    [
        {"transport": "shm"},
        {"transport": "grpc", "in_flight": 1, "scenario": Scenario.SINGLE_STREAM},
        {"transport": "grpc", "processes": 3, "mode": Mode.ACCURACY},
    ],
)
def test_a_balancer_that_takes_turns_fails_the_test(
    balancer: Proxy, run_test: RunTest, changes: dict[str, Any]
) -> None:
    with TritonClient(balancer.url) as client:
        outcome = run_test(client, **changes)
    assert outcome.error.startswith(SEVERAL), outcome


def test_a_worker_that_is_led_to_another_server_as_a_whole_fails_the_test(
    balancer: Proxy, twin: lifecycle.ServerInfo, prepared: Prepared, run_test: RunTest
) -> None:
    with TritonClient(balancer.url) as client:
        client.statistics(prepared.manifest.entry)
        balancer.turns = itertools.repeat(port_of(twin))
        outcome = run_test(client, transport="grpc")
    (book,) = outcome.books
    assert book.counted_samples == book.answered_samples > 0
    assert outcome.error.startswith(
        f"{SEVERAL}{client.url} answered {book.rehearsed_samples + book.answered_samples} samples, and 0 on "
        "the connection that set the model up"
    )


def test_one_server_behind_a_proxy_is_one_server(
    balancer: Proxy, twin: lifecycle.ServerInfo, run_test: RunTest
) -> None:
    balancer.turns = itertools.repeat(port_of(twin))
    with TritonClient(balancer.url) as client:
        check_books(run_test(client, processes=2))


def test_answers_from_a_response_cache_are_found_in_the_books(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = launch.command

    def with_cache(wheel: launch.Wheel, *arguments: Any, **more: Any) -> list[str]:
        caches = wheel.server.parents[1] / "caches"
        flags = ("--cache-config=local,size=1048576", f"--cache-directory={caches}")
        return [*command(wheel, *arguments, **more), *flags]

    monkeypatch.setattr(launch, "command", with_cache)
    facts, state_dir = prepared.manifest, tmp_path / "caching"
    info = lifecycle.start(prepared.entry_dir.parent, state_dir=state_dir, die_with_parent=True)
    with TritonClient(info.grpc_url) as client, grpc.insecure_channel(info.grpc_url) as channel:
        client.load(facts.entry, None)
        client.load(
            facts.entry,
            json.dumps({**client.model_config(facts.entry), "response_cache": {"enable": True}}),
        )
        ledger = Ledger(client, facts.entry)
        store = MessageStore(facts.entry, facts.variant, 1)
        store.fill(np.zeros((1, *facts.variant.input.shape), np.float32), [0])
        for _ in range(3):
            channel.unary_unary(INFER)(message_body(store.request(0, 1)))
        book, _ = ledger.close(Answered(3, 3))
    lifecycle.stop(info, state_dir)
    assert (book.counted_samples, book.executions, book.cache_hits) == (1, 1, 2)
    assert fault([book]) == (
        f"{info.grpc_url} answered 2 requests from a response cache, which MLPerf forbids: switch it off"
    )

"""Both channels against gRPC's own server, which answers with what it was asked."""

import asyncio
import http.server
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import hpack
import pytest

from harness.errors import InferenceError, RequestFailed
from harness.triton.channel import BlockingChannel, Channel
from harness.triton.http2 import message_prefix

SERVICE = "/inference.GRPCInferenceService/"
ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
TIMEOUT_S = 30.0


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    if request.startswith(b"refuse "):
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())
    if request.startswith(b"sleep "):
        time.sleep(float(request[6:]))
    return request


def echo_each(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        if request == b"hang up":
            return
        yield echo(request, context)


class Handler(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        return {
            SERVICE + "ModelInfer": grpc.unary_unary_rpc_method_handler(echo),
            SERVICE + "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(echo_each),
        }.get(details.method)


@contextmanager
def server(*options: tuple[str, int]) -> Iterator[tuple[str, grpc.Server]]:
    running = grpc.server(ThreadPoolExecutor(8), (Handler(),), options=(*ANY_SIZE, *options))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        yield f"127.0.0.1:{port}", running
    finally:
        running.stop(0).wait()


def infer(channel: Channel, body: bytes) -> asyncio.Future[bytes | InferenceError]:
    answer: asyncio.Future[bytes | InferenceError] = asyncio.get_running_loop().create_future()
    channel.infer(framed(body), answer.set_result)
    return answer


def framed(body: bytes) -> bytes:
    return message_prefix(len(body)) + body


class Blocking:
    def ask(self, url: str, *bodies: bytes, timeout_s: float = TIMEOUT_S) -> list[bytes | InferenceError]:
        channel = BlockingChannel(url)
        found: list[bytes | InferenceError] = []
        for body in bodies:
            try:
                found.append(channel.infer(framed(body), timeout_s))
            except InferenceError as error:
                found.append(error)
        channel.close()
        return found


class OnAnEventLoop:
    def ask(self, url: str, *bodies: bytes, timeout_s: float = TIMEOUT_S) -> list[bytes | InferenceError]:
        async def all_at_once() -> list[Any]:
            try:
                channel = await Channel.open(url, timeout_s)
            except InferenceError as error:
                return [error]
            found = await asyncio.gather(*(infer(channel, body) for body in bodies))
            await channel.close()
            return found

        return asyncio.run(all_at_once())


@pytest.fixture(params=[Blocking, OnAnEventLoop])
def client(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_messages_of_any_size_come_back(client: Any) -> None:
    bodies = [b"", b"a", bytes(16_380), bytes(16_384), bytes(range(256)) * 4096, b"long" * 5_000_000, b"z"]
    with server() as (url, _):
        assert client.ask(url, *bodies) == bodies


def test_many_at_once_over_few_streams(client: Any) -> None:
    bodies = [str(number).encode() * 1000 for number in range(200)]
    with server(("grpc.max_concurrent_streams", 3)) as (url, _):
        assert client.ask(url, *bodies) == bodies


def test_a_refusal_is_a_failure_and_the_next_call_goes_on(client: Any) -> None:
    with server() as (url, _):
        refusal, answer = client.ask(url, "refuse this: 100 % ü\n".encode(), b"fine")
    assert isinstance(refusal, RequestFailed)
    assert str(refusal) == "NOT_FOUND: refuse this: 100 % ü\n"
    assert refusal.is_fatal
    assert answer == b"fine"


def test_a_call_that_the_server_ends_is_a_failure_and_the_next_one_opens_another() -> None:
    with server() as (url, _):
        first, ended, answer = Blocking().ask(url, b"a", b"hang up", b"b")
    assert (first, answer) == (b"a", b"b")
    assert str(ended) == "UNAVAILABLE: the server ended the call"


def test_a_call_that_ends_with_an_answer_is_followed_by_another() -> None:
    encoder = hpack.Encoder()

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def answer(connected: socket.socket, stream: int, body: bytes) -> None:
        received = b""
        while body not in received:
            received += connected.recv(1 << 16)
        connected.sendall(
            frame(1, 4, stream, encoder.encode([(":status", "200"), ("content-type", "application/grpc")]))
            + frame(0, 0, stream, framed(body))
            + frame(1, 5, stream, encoder.encode([("grpc-status", "0")]))
        )

    def serve(listening: socket.socket) -> None:
        connected, _ = listening.accept()
        with connected:
            connected.sendall(frame(4, 0, 0, b""))
            answer(connected, 1, b"first")
            answer(connected, 3, b"second")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        url = f"127.0.0.1:{listening.getsockname()[1]}"
        assert Blocking().ask(url, b"first", b"second") == [b"first", b"second"]
        thread.join()


def test_a_call_without_an_answer_in_time_is_lost(client: Any) -> None:
    with server() as (url, _):
        began = time.monotonic()
        late, answer = client.ask(url, b"sleep 12", b"fine", timeout_s=0.6)
        assert time.monotonic() - began < 11
    assert str(late).startswith("DEADLINE_EXCEEDED")
    assert answer == b"fine"


def test_a_server_that_stops_fails_what_is_under_way(client: Any) -> None:
    with server() as (url, running):
        stop = threading.Timer(0.5, lambda: running.stop(0))
        stop.start()
        (lost,) = client.ask(url, b"sleep 3")
        stop.join()
    assert isinstance(lost, RequestFailed)
    assert str(lost).startswith(("UNAVAILABLE", "CANCELLED"))


def test_nobody_there_is_one_line(client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"127.0.0.1:{free.getsockname()[1]}"
    (refused,) = client.ask(url, b"")
    assert str(refused) == f"UNAVAILABLE: cannot connect to {url}: Connection refused"
    assert refused.is_fatal


def test_a_web_server_is_no_grpc_server(client: Any) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        (refused,) = client.ask(f"127.0.0.1:{web.server_port}", b"")
        web.shutdown()
    assert isinstance(refused, InferenceError)
    assert "does not speak HTTP/2" in str(refused)


def test_a_server_that_closes_old_connections_loses_nothing() -> None:
    async def ask(url: str) -> int:
        channel = await Channel.open(url, TIMEOUT_S)
        end, answered = time.monotonic() + 1.5, 0

        async def one_after_the_other() -> None:
            nonlocal answered
            while time.monotonic() < end:
                assert await infer(channel, b"x") == b"x"
                answered += 1

        await asyncio.gather(*(one_after_the_other() for _ in range(8)))
        await channel.close()
        return answered

    with server(("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 1000)) as (url, _):
        assert asyncio.run(ask(url)) > 100
        channel = BlockingChannel(url)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert channel.infer(framed(b"x"), TIMEOUT_S) == b"x"
        channel.close()

"""Channels, ours and those over gRPC's library, against its own server, which answers what it was asked."""

import asyncio
import http.server
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import hpack
import hyperframe.frame
import pytest

from harness.errors import InferenceError, RequestFailed
from harness.triton.address import Address, Header, Tls
from harness.triton.channel import BlockingChannel
from harness.triton.channels import AnyChannel, blocking_channel, open_channel
from harness.triton.http2 import message_prefix
from harness.triton.rpc import Rpc
from tests.certificates import make_authority, make_certificate

SERVICE = "/inference.GRPCInferenceService/"
ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
TIMEOUT_S = 30.0


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    if request.startswith(b"refuse "):
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())
    if request == b"name key":
        return str(dict(context.invocation_metadata()).get("key")).encode()
    if request.startswith(b"sleep "):
        time.sleep(float(request[6:]))
    return request


def echo_each(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        if request == b"hang up":
            return
        yield echo(request, context)
        if request == b"answer and hang up":
            return


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


def infer(channel: AnyChannel, body: bytes) -> asyncio.Future[bytes | InferenceError]:
    answer: asyncio.Future[bytes | InferenceError] = asyncio.get_running_loop().create_future()
    channel.infer(framed(body), answer.set_result)
    return answer


def framed(body: bytes) -> bytes:
    return message_prefix(len(body)) + body


class Blocking:
    def __init__(self, rpc: Rpc = Rpc.OWN, **access: Any) -> None:
        self.rpc, self.access = rpc, access

    def ask(self, url: str, *bodies: bytes, timeout_s: float = TIMEOUT_S) -> list[bytes | InferenceError]:
        channel = blocking_channel(Address(url, self.rpc, **self.access))
        found: list[bytes | InferenceError] = []
        for body in bodies:
            try:
                found.append(channel.infer(framed(body), timeout_s))
            except InferenceError as error:
                found.append(error)
        channel.close()
        return found


class OnAnEventLoop:
    def __init__(self, rpc: Rpc = Rpc.OWN, **access: Any) -> None:
        self.rpc, self.access = rpc, access

    def ask(self, url: str, *bodies: bytes, timeout_s: float = TIMEOUT_S) -> list[bytes | InferenceError]:
        async def all_at_once() -> list[Any]:
            try:
                channel = await open_channel(Address(url, self.rpc, **self.access), timeout_s)
            except InferenceError as error:
                return [error]
            found = await asyncio.gather(*(infer(channel, body) for body in bodies))
            await channel.close()
            return found

        return asyncio.run(all_at_once())


@pytest.fixture(params=[Blocking, OnAnEventLoop])
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=list(Rpc))
def rpc(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(way: Any, rpc: Rpc) -> Any:
    return way(rpc)


def test_messages_of_any_size_come_back(client: Any) -> None:
    bodies = [b"", b"a", bytes(16_380), bytes(16_384), bytes(range(256)) * 4096, b"long" * 5_000_000, b"z"]
    with server() as (url, _):
        assert client.ask(url, *bodies) == bodies


def test_headers_go_with_every_call(way: Any, rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret")
    asking = way(rpc, headers=(Header("key", "my ", "$KEY"),))
    with server() as (url, _):
        assert asking.ask(url, *[b"name key"] * 4) == [b"my secret"] * 4
        assert way(rpc).ask(url, b"name key") == [b"None"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "ca")
    make_certificate(folder, "server", "ca")
    return folder


@pytest.mark.parametrize("scheme", ["grpcs://localhost", "unix:", "dns:///localhost"])
def test_over_tls_a_socket_of_this_machine_and_a_name(
    way: Any, scheme: str, certificates: Path, tmp_path: Path
) -> None:
    running = grpc.server(ThreadPoolExecutor(8), (Handler(),), options=ANY_SIZE)
    if scheme == "unix:":
        url = f"unix:{tmp_path}/socket"
        running.add_insecure_port(url)
    elif scheme.startswith("dns:"):
        url = f"{scheme}:{running.add_insecure_port('localhost:0')}"
    else:
        pair = [(certificates / f"server.{kind}").read_bytes() for kind in ("key", "pem")]
        url = f"{scheme}:{running.add_secure_port('localhost:0', grpc.ssl_server_credentials([pair]))}"
    running.start()
    bodies = [b"a", bytes(100_000), b"refuse", b"c"]
    assert way(Rpc.GRPC, tls=Tls(f"{certificates}/ca.pem")).ask(url, *bodies) == bodies
    running.stop(0).wait()


def test_many_at_once(client: Any) -> None:
    bodies = [str(number).encode() * 1000 for number in range(200)]
    with server() as (url, _):
        assert client.ask(url, *bodies) == bodies


def test_many_at_once_over_few_streams(way: Any) -> None:
    # Ours alone: where the server refuses a stream twice, gRPC's library gives the call up.
    bodies = [str(number).encode() * 1000 for number in range(200)]
    with server(("grpc.max_concurrent_streams", 3)) as (url, _):
        assert way(Rpc.OWN).ask(url, *bodies) == bodies


def test_a_refusal_is_a_failure_and_the_next_call_goes_on(client: Any) -> None:
    with server() as (url, _):
        refusal, answer = client.ask(url, "refuse this: 100 % ü\n".encode(), b"fine")
    assert isinstance(refusal, RequestFailed)
    assert str(refusal) == "NOT_FOUND: refuse this: 100 % ü\n"
    assert refusal.is_fatal
    assert answer == b"fine"


def test_a_call_that_the_server_ends_is_a_failure_and_the_next_one_opens_another(rpc: Rpc) -> None:
    with server() as (url, _):
        first, ended, answer = Blocking(rpc).ask(url, b"a", b"hang up", b"b")
    assert (first, answer) == (b"a", b"b")
    assert str(ended) == "UNAVAILABLE: the server ended the call"


def test_a_closed_channel_connects_anew_with_the_next_request(rpc: Rpc) -> None:
    with server() as (url, _):
        channel = blocking_channel(Address(url, rpc))
        for body in (b"a", b"b"):
            assert channel.infer(framed(body), TIMEOUT_S) == body
            channel.close()


def test_a_call_that_ends_between_two_messages_is_opened_again_and_nothing_fails(rpc: Rpc) -> None:
    bodies = [b"a", b"answer and hang up", b"b", b"answer and hang up", b"answer and hang up", b"c"]
    with server() as (url, _):
        assert Blocking(rpc).ask(url, *bodies) == bodies


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
    assert refused.is_fatal
    (line,) = str(refused).splitlines()
    assert line.startswith("UNAVAILABLE: ")
    if client.rpc == Rpc.OWN:
        assert line == f"UNAVAILABLE: cannot connect to {url}: Connection refused"


def test_a_web_server_is_no_grpc_server(client: Any) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        (refused,) = client.ask(f"127.0.0.1:{web.server_port}", b"")
        web.shutdown()
    assert isinstance(refused, InferenceError)
    assert ("does not speak HTTP/2" if client.rpc == Rpc.OWN else "UNAVAILABLE") in str(refused)


AGED = (("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 1000))


def test_a_server_that_closes_old_connections_loses_nothing(rpc: Rpc) -> None:
    async def ask(url: str) -> int:
        channel = await open_channel(Address(url, rpc), TIMEOUT_S)
        end, answered = time.monotonic() + 1.5, 0

        async def one_after_the_other() -> None:
            nonlocal answered
            while time.monotonic() < end:
                assert await infer(channel, b"x") == b"x"
                answered += 1

        await asyncio.gather(*(one_after_the_other() for _ in range(8)))
        await channel.close()
        return answered

    with server(*AGED) as (url, _):
        assert asyncio.run(ask(url)) > 100


def test_a_call_on_an_old_connection_is_followed_by_another_on_a_new_one() -> None:
    # Ours alone: gRPC's library tells nobody that a call's connection is about to end.
    with server(*AGED) as (url, _):
        channel = BlockingChannel(Address(url))
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert channel.infer(framed(b"x"), TIMEOUT_S) == b"x"
        channel.close()


class H2Peer(threading.Thread):
    """A server on HTTP/2's level: `on_event(peer, connection, event)` hears of all that comes."""

    def __init__(self, on_event: Any) -> None:
        super().__init__(daemon=True)
        self.on_event = on_event
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.connections = 0
        self.start()

    def run(self) -> None:
        while True:
            connected, _ = self.listening.accept()
            self.connections += 1
            threading.Thread(target=self.serve, args=(connected,), daemon=True).start()

    def serve(self, connected: socket.socket) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        connected.sendall(connection.data_to_send())
        # A client that has heard enough closes the connection.
        with connected, suppress(OSError):
            while received := connected.recv(1 << 16):
                for event in connection.receive_data(received):
                    self.on_event(self, connection, event)
                connected.sendall(connection.data_to_send())

    def answer(self, connection: Any, stream: int, body: bytes) -> None:
        connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        connection.send_data(stream, framed(body))
        connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def test_a_request_whose_call_ends_before_its_answer_is_sent_again_and_counted() -> None:
    heard: list[int] = []

    def on_event(peer: H2Peer, connection: Any, event: Any) -> None:
        if not isinstance(event, h2.events.DataReceived):
            return
        heard.append(event.stream_id)
        if len(heard) == 1:
            connection.send_headers(
                event.stream_id, [(":status", "200"), ("content-type", "application/grpc")]
            )
            connection.send_data(event.stream_id, framed(b"a"))
        elif len(heard) == 2:
            connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
        else:
            peer.answer(connection, event.stream_id, b"b")

    channel = BlockingChannel(Address(H2Peer(on_event).url))
    assert [channel.infer(framed(body), TIMEOUT_S) for body in (b"a", b"b")] == [b"a", b"b"]
    channel.close()
    assert (heard, channel.sent_again) == ([1, 1, 3], 1)


def test_what_a_server_that_goes_away_has_seen_expires_and_the_rest_is_answered_by_the_next() -> None:
    def on_event(peer: H2Peer, connection: Any, event: Any) -> None:
        if not isinstance(event, h2.events.StreamEnded):
            return
        if peer.connections > 1:
            peer.answer(connection, event.stream_id, b"by the next")
        elif event.stream_id == 3:
            # h2 would close the connection with its own method.
            frame = hyperframe.frame.GoAwayFrame(0, last_stream_id=1, error_code=0)
            connection._data_to_send += frame.serialize()

    found = OnAnEventLoop().ask(H2Peer(on_event).url, b"a", b"b", timeout_s=1.0)
    assert str(found[0]) == "DEADLINE_EXCEEDED: no answer in time"
    assert found[1] == b"by the next"


def test_a_request_that_is_refused_again_and_again_keeps_its_first_deadline(client: Any) -> None:
    def refuse(_peer: H2Peer, connection: Any, event: Any) -> None:
        # With its first bytes: an open call has no end.
        if isinstance(event, h2.events.RequestReceived):
            connection.reset_stream(event.stream_id, error_code=7)
            time.sleep(0.02)

    (found,) = client.ask(H2Peer(refuse).url, b"a", timeout_s=0.5)
    assert isinstance(found, InferenceError)


@pytest.mark.parametrize("ours", [Blocking, OnAnEventLoop])
def test_what_a_server_said_before_it_closed_the_connection_is_in_the_message(ours: Any) -> None:
    frame = hyperframe.frame.GoAwayFrame(
        0, last_stream_id=1, error_code=11, additional_data=b"too_many_pings"
    )

    def serve() -> None:
        connected, _ = listening.accept()
        with connected:
            connected.sendall(hyperframe.frame.SettingsFrame(0).serialize())
            connected.recv(1 << 16)
            connected.sendall(frame.serialize())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        (lost,) = ours().ask(f"127.0.0.1:{listening.getsockname()[1]}", b"a")
    assert "the connection is lost" in str(lost)
    assert "HTTP/2 error 11: too_many_pings" in str(lost)

"""Inferences over gRPC's own library: the same ready-made bytes, its connections instead of ours.

No serialiser is set, so what is left of the library is what it takes to send bytes and to be told what came.
The two classes stand in for those of `harness.triton.channel`: calls on its event loop where many requests
are under way, messages of one long call where it is one. It takes a message without its prefix, and only as
bytes, which costs a copy of each that ours does without.
"""

import asyncio
import contextlib
import math
import os
import queue
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc

from harness.errors import ConfigError, InferenceError, RequestFailed
from harness.triton.address import Address
from harness.triton.channel import (
    CONNECT_TIMEOUT_S,
    EXPIRY_INTERVAL_S,
    INFER,
    STREAM_INFER,
    notice_when_the_peer_vanishes,
)
from harness.triton.http2 import Done, Message, Metadata, Status, failed, message_body

# Fixed batches of large images exceed gRPC's default of 4 MB; -1 is no limit, as tritonclient has it.
# And gRPC would send even this machine's own traffic through $http_proxy.
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
_OF_A_NETWORK = (socket.AF_INET, socket.AF_INET6)


def channel_options(server: Address) -> tuple[tuple[str, str | int], ...]:
    """How gRPC's library connects to a server: by the name that it is called, wherever that was found."""
    if server.found:
        return (*_OPTIONS, ("grpc.default_authority", server.target))
    if server.name and server.is_encrypted:
        return (*_OPTIONS, ("grpc.ssl_target_name_override", server.name))
    return _OPTIONS


def _failure(error: grpc.RpcError) -> RequestFailed:
    # Every error of a call is a call too, and knows how it ended.
    code, _ = error.code().value
    return failed(Status(code), error.details() or "")


def _notice_when_the_peer_vanishes(server: Address) -> bool:
    """Give the sockets that gRPC's library has opened the options of our own; False where there is none yet.

    It has no option for them: only pings, of which a server allows one in five minutes.
    """
    _, port = server.host_and_port
    # The peer of a socket in the file system is on this machine.
    is_found = not port
    for shared in _own_sockets():
        # It may have no peer.
        with contextlib.suppress(OSError):
            if shared.family in _OF_A_NETWORK and str(shared.getpeername()[1]) == port:
                notice_when_the_peer_vanishes(shared)
                is_found = True
    return is_found


def _own_sockets() -> Iterator[socket.socket]:
    """Every socket of this process, for one turn of a loop and by a descriptor of its own."""
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        # It may be closed meanwhile.
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as shared:
                    yield shared


def credentials(server: Address) -> grpc.ChannelCredentials | None:
    """Whom to trust, and who we are; None where the server is not asked over TLS.

    Raises:
        ConfigError: a file cannot be read.
    """
    if not server.is_encrypted:
        return None
    files = (server.tls.authorities, server.tls.key, server.tls.cert)
    try:
        return grpc.ssl_channel_credentials(*(Path(file).read_bytes() if file else None for file in files))
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error


class GrpcChannel:
    """One server, asked many things at once on the event loop that this was opened on."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata, timeout_s: float) -> None:
        self._channel, self._metadata, self._timeout_s = channel, metadata, timeout_s
        self._call = channel.unary_unary(INFER)
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[None]] = set()
        """The event loop itself does not keep its tasks alive."""

    @classmethod
    async def open(cls, server: Address, timeout_s: float) -> Self:
        """Connect to a server; requests fail that have no answer after `timeout_s`.

        Raises:
            RequestFailed: nothing listens there.
        """
        trust = credentials(server)
        if trust:
            channel = grpc.aio.secure_channel(server.endpoint, trust, channel_options(server))
        else:
            channel = grpc.aio.insecure_channel(server.endpoint, channel_options(server))
        try:
            await asyncio.wait_for(_connected(channel, server.url), CONNECT_TIMEOUT_S)
        except (TimeoutError, RequestFailed) as error:
            await channel.close()
            raise failed(Status.UNAVAILABLE, f"cannot connect to {server.url}") from error
        _notice_when_the_peer_vanishes(server)
        return cls(channel, server.metadata(), timeout_s)

    def infer(self, request: Message, done: Done) -> None:
        """Send a ModelInferRequest (see `messages`); `done` hears its outcome, later, on the event loop.

        The outcome is the serialised ModelInferResponse, or what `GrpcBlockingChannel.infer` would raise.
        """
        task = self._loop.create_task(self._ask(request, done))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _ask(self, request: Message, done: Done) -> None:
        outcome: bytes | InferenceError
        try:
            outcome = await self._call(
                message_body(request), timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            outcome = _failure(error)
        done(outcome)

    async def close(self) -> None:
        """Close the connection; inferences under way never end."""
        for task in self._under_way:
            task.cancel()
        await self._channel.close()


async def _connected(channel: grpc.aio.Channel, url: str) -> None:
    """Wait for a connection, but not for gRPC's second attempt at one."""
    while (state := channel.get_state(try_to_connect=True)) != grpc.ChannelConnectivity.READY:
        if state == grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise failed(Status.UNAVAILABLE, f"cannot connect to {url}")
        await channel.wait_for_state_change(state)


class GrpcBlockingChannel:
    """One server, asked by one thread, which waits for each answer. It connects with the first request.

    gRPC has two threads of its own at work for it, to take each request and to hear of each answer.
    """

    def __init__(self, server: Address) -> None:
        self._server, self._metadata, self._trust = server, server.metadata(), credentials(server)
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._deadline = math.inf
        self._lock = threading.Lock()
        """Of the call and its deadline."""
        self._is_closed = threading.Event()
        self._has_answered = False
        """Of the call: what ends one that has is no refusal."""
        self.sent_again = 0
        """As of `harness.triton.channel.BlockingChannel`."""

    def infer(self, request: Message, timeout_s: float) -> bytes:
        """Send a ModelInferRequest, made by harness.triton.messages; its serialised ModelStreamInferResponse.

        Raises:
            RequestFailed: it was refused or lost, by a server or by what is none.
        """
        deadline = time.monotonic() + timeout_s
        answer = self._answer(request, deadline)
        if answer is None and self._has_answered:
            # A proxy may end a call between two messages: whether it passed this one on, who knows.
            self.sent_again += 1
            answer = self._answer(request, deadline)
        if answer is None:
            raise failed(Status.UNAVAILABLE, "the server ended the call")
        return answer

    def _answer(self, request: Message, deadline: float) -> bytes | None:
        """What came for it; None where the call was ended instead.

        Raises:
            RequestFailed: it was refused or lost, by a server or by what is none.
        """
        with self._lock:
            call = self._call = self._call or self._open()
            self._deadline = deadline
        self._requests.put(message_body(request))
        error = None
        try:
            answer: bytes = next(call)
        except StopIteration:
            pass
        except grpc.RpcError as reason:
            is_late = time.monotonic() >= deadline
            error = failed(Status.DEADLINE_EXCEEDED, "no answer in time") if is_late else _failure(reason)
        else:
            self._deadline, self._has_answered = math.inf, True
            return answer
        with self._lock:
            self._end_call()
        if error:
            raise error
        return None

    def _open(self) -> Any:
        if self._channel is None:
            target, options = self._server.endpoint, channel_options(self._server)
            if self._trust:
                self._channel = grpc.secure_channel(target, self._trust, options)
            else:
                self._channel = grpc.insecure_channel(target, options)
            self._is_closed = threading.Event()
            watch = threading.Thread(target=self._expire, args=(self._is_closed,), name="expiry", daemon=True)
            watch.start()
        self._requests, self._has_answered = queue.SimpleQueue(), False
        call = self._channel.stream_stream(STREAM_INFER)
        return call(iter(self._requests.get, None), metadata=self._metadata)

    def _expire(self, is_closed: threading.Event) -> None:
        """End a call whose answer is late: waiting for it, gRPC knows no time limit."""
        is_connected = False
        while not is_closed.wait(EXPIRY_INTERVAL_S):
            is_connected = is_connected or _notice_when_the_peer_vanishes(self._server)
            with self._lock:
                if time.monotonic() >= self._deadline:
                    self._end_call()

    def _end_call(self) -> None:
        if self._call:
            self._call.cancel()
            self._requests.put(None)
        self._call, self._deadline = None, math.inf

    def close(self) -> None:
        """Close the connection; the next request would open another."""
        self._is_closed.set()
        with self._lock:
            self._end_call()
        if self._channel:
            self._channel.close()
        self._channel = None

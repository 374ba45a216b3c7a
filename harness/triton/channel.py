"""Inferences over the wire: serialised requests to serialised responses, one at a time or many at once."""

import asyncio
import functools
import socket
import struct
import time
from typing import Self

from harness.errors import InferenceError
from harness.triton.address import Address
from harness.triton.http2 import (
    Buffer,
    Call,
    Connection,
    Done,
    Message,
    NotProcessed,
    ProtocolError,
    Status,
    failed,
)

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
CONNECT_TIMEOUT_S = 20.0
EXPIRY_INTERVAL_S = 0.5
_RECEIVE_BYTES = 1 << 18
_MOST_PARTS = 512
"""Of one system call; Linux takes no more than 1024."""
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 4,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 10_000,
}
"""A peer that has vanished is noticed after 10 s, whether it owes us an acknowledgement or not: seconds,
seconds,
probes, ms."""
_TIMEOUT = struct.Struct("ll")
"""Seconds and microseconds, as SO_RCVTIMEO and SO_SNDTIMEO take them."""


def _connect(server: Address) -> socket.socket:
    """Connect to host:port; an IPv6 address in brackets.

    Raises:
        RequestFailed: nothing listens there.
    """
    host, _, port = (server.found or server.url).rpartition(":")
    try:
        connected = socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        notice_when_the_peer_vanishes(connected)
    except OSError as error:
        reason = error.strerror or error
        raise failed(Status.UNAVAILABLE, f"cannot connect to {server.url}: {reason}") from error
    return connected


def notice_when_the_peer_vanishes(connected: socket.socket) -> None:
    """Have the kernel ask whether the peer is still there, and end the connection where it is not."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def _send(connected: socket.socket, unsent: list[Buffer]) -> None:
    """Send parts without joining them; what the socket has no room for stays in the list."""
    while unsent:
        sent = connected.sendmsg(unsent[:_MOST_PARTS])
        whole = 0
        while whole < len(unsent) and len(unsent[whole]) <= sent:
            sent -= len(unsent[whole])
            whole += 1
        del unsent[:whole]
        if sent:
            unsent[0] = memoryview(unsent[0])[sent:]


def _lost(connection: Connection, error: OSError | None = None) -> InferenceError:
    reason = (error.strerror or str(error)) if error else "closed by the server"
    farewell = f" ({connection.farewell})" if connection.farewell else ""
    return failed(Status.UNAVAILABLE, f"the connection is lost: {reason}{farewell}")


class BlockingChannel:
    """One server, asked by one thread, which waits for each answer. It connects with the first request.

    The requests are messages of one long call: the server spends less on them than on a call each. One that
    fails has its error's text for an answer. Triton can end the call with gRPC's status instead, asked by its
    header `triton_grpc_error`, but may then crash (seen in 2.51: its log has "HandleCancellation called even
    when the context was not cancelled" for every failed request, and now and then a segmentation fault next).
    """

    def __init__(self, server: Address) -> None:
        self._server, self._metadata = server, server.metadata()
        self._socket: socket.socket | None = None
        self._connection = self._new_connection()
        self._call: Call | None = None
        self._outcomes: list[bytes | InferenceError] = []
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._timeout_s = 0.0
        self.sent_again = 0
        """Requests whose call ended before their answer: whether they were carried out, who knows."""

    def infer(self, request: Message, timeout_s: float) -> bytes:
        """Send a ModelInferRequest, made by harness.triton.messages; its serialised ModelStreamInferResponse.

        Raises:
            RequestFailed: it was refused or lost.
            InferenceError: what answers is no gRPC server.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            outcome = self._outcome(request, timeout_s, deadline)
            if isinstance(outcome, bytes):
                return outcome
            if not isinstance(outcome, NotProcessed) or time.monotonic() >= deadline:
                raise outcome
            self.sent_again += 1

    def _outcome(self, request: Message, timeout_s: float, deadline: float) -> bytes | InferenceError:
        connected = self._connected(timeout_s)
        connection, outcomes = self._connection, self._outcomes
        outcomes.clear()
        if self._call:
            connection.send(self._call, request)
        else:
            self._call = connection.open(request, outcomes.append)
        while not outcomes:
            try:
                _send(connected, connection.unsent)
                if count := connected.recv_into(self._buffer):
                    connection.receive(self._buffer[:count])
                else:
                    connection.fail(_lost(connection))
            except BlockingIOError:
                pass  # The kernel's timeout, which is not shorter than ours.
            except OSError as error:
                connection.fail(_lost(connection, error))
            except ProtocolError as error:
                connection.fail(error)
            if not outcomes and time.monotonic() >= deadline:
                connection.expire(deadline)
        # An answer and the call's end can come together.
        if isinstance(outcomes[-1], InferenceError):
            self._call = None
        return outcomes[0]

    def _new_connection(self) -> Connection:
        return Connection(self._server.url, STREAM_INFER, self._metadata)

    def _connected(self, timeout_s: float) -> socket.socket:
        if self._socket is None or self._connection.is_closing:
            self.close()
            self._socket = _connect(self._server)
            self._connection = self._new_connection()
            self._timeout_s = 0.0
        if timeout_s != self._timeout_s:
            # The kernel's own timeouts: Python's would cost every call another system call.
            timeout = _TIMEOUT.pack(int(timeout_s), int(timeout_s % 1 * 1e6))
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            self._timeout_s = timeout_s
        return self._socket

    def close(self) -> None:
        """Close the connection; the next request would open another."""
        if self._socket:
            self._socket.close()
        self._socket = self._call = None


class _Line:
    """A connection on an event loop."""

    def __init__(self, connected: socket.socket, server: Address) -> None:
        connected.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._is_flush_due = self._is_full = False
        self.connection = Connection(server.url, INFER, server.metadata())
        self._loop.add_reader(connected, self._read)

    def call(self, request: Message, done: Done, began: float) -> None:
        """Send a request, together with all others of this turn of the event loop."""
        self.connection.call(request, done, began)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Send what is unsent after this turn of the event loop."""
        if not self._is_flush_due and not self._is_full:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        try:
            _send(self._socket, self.connection.unsent)
        except BlockingIOError:
            if not self._is_full:
                self._is_full = True
                self._loop.add_writer(self._socket, self._flush)
            return
        except OSError as error:
            self._end(_lost(self.connection, error))
            return
        if self._is_full:
            self._is_full = False
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            count = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(_lost(self.connection, error))
            return
        if not count:
            self._end(_lost(self.connection))
            return
        try:
            self.connection.receive(self._buffer[:count])
        except ProtocolError as error:
            self._end(error)
            return
        if self.connection.unsent:
            self.flush_soon()
        if self.connection.is_closing and self.connection.is_idle:
            self._end(_lost(self.connection))

    def _end(self, error: InferenceError) -> None:
        self.close()
        self.connection.fail(error)

    def close(self) -> None:
        """Let go of the socket; calls under way never end."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()


class Channel:
    """One server, asked many things at once on the event loop that this was opened on."""

    def __init__(self, server: Address, timeout_s: float, line: _Line) -> None:
        self._server, self._timeout_s, self._line = server, timeout_s, line
        self._left: list[_Line] = []
        """Lines that the server closes: what it has seen of them is still being answered."""
        self._postponed: list[tuple[Message, Done, float]] = []
        """What was asked while there is no connection, and when; a task makes one."""
        self._loop = asyncio.get_running_loop()
        self._expiry = self._loop.call_later(EXPIRY_INTERVAL_S, self._expire)

    @classmethod
    async def open(cls, server: Address, timeout_s: float) -> Self:
        """Connect to a server; requests fail that have no answer after `timeout_s`.

        Raises:
            RequestFailed: nothing listens there.
        """
        return cls(server, timeout_s, await cls._new_line(server))

    @staticmethod
    async def _new_line(server: Address) -> _Line:
        return _Line(await asyncio.to_thread(_connect, server), server)

    def infer(self, request: Message, done: Done) -> None:
        """Send a ModelInferRequest (see `messages`); `done` hears its outcome, later, on the event loop.

        The outcome is the serialised ModelInferResponse, or what `BlockingChannel.infer` would raise.
        """
        self._infer(request, done, time.monotonic())

    def _infer(self, request: Message, done: Done, began: float) -> None:
        if self._line.connection.is_closing:
            if not self._postponed:
                self._reconnecting = self._loop.create_task(self._reconnect())
            self._postponed.append((request, done, began))
        else:
            self._line.call(request, functools.partial(self._ended, request, done, began), began)

    def _ended(self, request: Message, done: Done, began: float, outcome: bytes | InferenceError) -> None:
        if isinstance(outcome, NotProcessed) and time.monotonic() < began + self._timeout_s:
            self._infer(request, done, began)
        else:
            done(outcome)

    async def _reconnect(self) -> None:
        failure: InferenceError | None = None
        try:
            line = await self._new_line(self._server)
        except InferenceError as error:
            failure = error
        else:
            self._left.append(self._line)
            self._line = line
        postponed, self._postponed = self._postponed, []
        for request, done, began in postponed:
            if failure:
                done(failure)
            else:
                self._infer(request, done, began)

    def _expire(self) -> None:
        self._left = [line for line in self._left if not line.connection.is_idle]
        for line in (self._line, *self._left):
            line.connection.expire(time.monotonic() - self._timeout_s)
            line.flush_soon()
        self._expiry = self._loop.call_later(EXPIRY_INTERVAL_S, self._expire)

    async def close(self) -> None:
        """Close the connection; inferences under way never end."""
        self._expiry.cancel()
        for line in (self._line, *self._left):
            line.close()

"""gRPC calls of ready-made bytes on one HTTP/2 connection: what to send and what came, without I/O.

gRPC's own Python client costs several times the CPU of all else that the harness does for a query. Here a
call is two frames put together from ready parts, and its answer three frames, or one each for the later
messages of a call that stays open: one method, no compression, no TLS, which is all that Triton needs.

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by the `hpack` package), and gRPC's PROTOCOL-HTTP2.md.
"""

import enum
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import hpack

from harness.errors import InferenceError, RequestFailed
from harness.triton.address import with_hint

Buffer = bytes | memoryview
Message = bytes
"""Of gRPC, with its prefix: see `message_prefix`."""
Metadata = Sequence[tuple[str, str]]
"""Names, in lower case, and values of headers."""
Done = Callable[[bytes | InferenceError], None]
"""Is told the serialised response, or why there is none; must not raise, and may make another call."""


class Status(enum.IntEnum):
    """Of a gRPC call."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_STATUS = {str(status.value): status for status in Status}


class _Frame(enum.IntEnum):
    """Types that are looked at; others are passed over, as RFC 9113 wants."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class _Setting(enum.IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_PRIORITY = 0x20
_PRIORITY_BYTES = 5

_REFUSED = 0x7
_CANCEL = 0x8
_RESET_STATUS = {
    _CANCEL: Status.CANCELLED,
    0xB: Status.RESOURCE_EXHAUSTED,
    0xC: Status.PERMISSION_DENIED,
}
"""By HTTP/2's error code, as PROTOCOL-HTTP2.md maps them; all others are INTERNAL."""
_HTTP_STATUS = {
    "400": Status.INTERNAL,
    "401": Status.UNAUTHENTICATED,
    "403": Status.PERMISSION_DENIED,
    "404": Status.UNIMPLEMENTED,
    "429": Status.UNAVAILABLE,
    "502": Status.UNAVAILABLE,
    "503": Status.UNAVAILABLE,
    "504": Status.UNAVAILABLE,
}
"""For answers of what is no gRPC server, as gRPC's http-grpc-status-mapping.md; all others are UNKNOWN."""
_FATAL = (Status.UNAVAILABLE, Status.NOT_FOUND, Status.UNIMPLEMENTED)
"""No later request can succeed either."""

_REOPENED = (0x0, _REFUSED, _CANCEL)
"""Resets of an open call between two of its messages that say nothing against another call: no error,
refused,
cancelled; so a proxy ends what has been open for long."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = struct.Struct(">BHBBI")
"""Of a frame: length (24 bits), type, flags, stream."""
_WORD = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_MESSAGE_HEAD = struct.Struct(">BI")
"""Of a gRPC message: whether it is compressed, length."""
_DEFAULT_WINDOW = 65_535
_LARGEST_WINDOW = 2**31 - 1
_DEFAULT_FRAME = 16_384
_LARGEST_FRAME = 2**24 - 1
_OUR_FRAME = 1 << 20
_RENEW_AT = 1 << 30
"""Bytes received, on the connection or in one call, until the server is told that it may send as many
more."""
_LAST_STREAM = 2**31 - 1
_TOO_SHORT = "the server sent a frame that is too short"


class ProtocolError(InferenceError):
    """What came is not HTTP/2; the connection is of no more use."""


class NotProcessed(InferenceError):
    """The server has not looked at the request, which may be sent again (RFC 9113, 8.7)."""


def failed(status: Status, details: str) -> RequestFailed:
    """The error that a call ended with."""
    return RequestFailed(f"{status.name}: {with_hint(status.name, details)}", is_fatal=status in _FATAL)


class _Inbox:
    """What the server may send us (RFC 9113, 5.2): of a connection, and of each call on it."""

    __slots__ = ("unrenewed",)

    def __init__(self) -> None:
        self.unrenewed = 0

    def take(self, count: int) -> int:
        """Count bytes that came; how many more the server is to be told of, 0 while it has room enough."""
        self.unrenewed += count
        if self.unrenewed < _RENEW_AT:
            return 0
        more, self.unrenewed = self.unrenewed, 0
        return more


class Call(_Inbox):
    """A call under way."""

    __slots__ = ("began", "data", "done", "has_answered", "http_status", "stays_open", "stream")

    def __init__(self, done: Done, *, stays_open: bool, began: float | None = None) -> None:
        super().__init__()
        self.done = done
        self.stays_open = stays_open
        self.began = time.monotonic() if began is None else began
        self.stream = 0
        self.data = b""
        self.http_status = ""
        self.has_answered = False
        """Whether a call that stays open has answered any message."""


class _Upload:
    """What is left to be sent of a request that is longer than a frame or the server's window.

    A call that stays open keeps it, with nothing left between its messages.
    """

    __slots__ = ("rest", "stays_open", "window")

    def __init__(self, rest: memoryview, window: int, *, stays_open: bool) -> None:
        self.rest = rest
        self.window = window
        self.stays_open = stays_open


class Connection:
    """One connection's state. `unsent` is what must be sent next, in order; its owner empties it."""

    def __init__(self, authority: str, path: str, metadata: Metadata = ()) -> None:
        """Begin.

        Args:
            authority: the server, as host:port.
            path: the method, as /package.Service/Method.
            metadata: more headers of every call.
        """
        self._header_fields = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        )
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._latest_block = self._block = b""
        self._known: dict[bytes, dict[str, str]] = {}
        """Header blocks that only point into the decoder's table, as it is now."""
        self._received = bytearray()
        self._headers_of: tuple[int, int, bytes] | None = None
        """Stream, flags and fragments of a header block that goes on in the next frame."""
        self._calls: dict[int, Call] = {}
        self._waiting: deque[tuple[Message, Call]] = deque()
        self._uploads: dict[int, _Upload] = {}
        self._latest_stream = -1
        self._most_streams = 0
        """At once, as the server allows it; none before its first settings say so."""
        self._has_settings = False
        self._largest_frame = _DEFAULT_FRAME
        self._window, self._first_window = _DEFAULT_WINDOW, _DEFAULT_WINDOW
        self._inbox = _Inbox()
        self.is_closing = False
        """No new call may be made on it."""
        self.farewell = ""
        """Why the server closes it, in its own words, once it has said so."""
        settings = (
            (_Setting.ENABLE_PUSH, 0),
            (_Setting.INITIAL_WINDOW_SIZE, _LARGEST_WINDOW),
            (_Setting.MAX_FRAME_SIZE, _OUR_FRAME),
        )
        self.unsent: list[Buffer] = [
            _PREFACE,
            _frame(_Frame.SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in settings)),
            _frame(_Frame.WINDOW_UPDATE, 0, 0, _WORD.pack(_LARGEST_WINDOW - _DEFAULT_WINDOW)),
        ]

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._calls and not self._waiting

    def call(self, message: Message, done: Done, began: float | None = None) -> None:
        """Make a call: `done` hears of its end, when `fail` is called at the latest.

        Args:
            message: the request.
            done: is told the outcome.
            began: when the request was first made, by the monotonic clock; now if not given.
        """
        self._begin(message, Call(done, stays_open=False, began=began))

    def open(self, message: Message, done: Done) -> Call:
        """Make a call that can be given more messages; `done` hears of every answer, and last of an error."""
        call = Call(done, stays_open=True)
        self._begin(message, call)
        return call

    def send(self, call: Call, message: Message) -> None:
        """Send another message of an open call, once the one before has its answer."""
        call.began = time.monotonic()
        self._uploads[call.stream].rest = memoryview(message)
        self._upload(call.stream)

    def _begin(self, message: Message, call: Call) -> None:
        # Those that wait go first: `done` of one call often makes the next.
        if len(self._calls) < self._most_streams and not self._waiting:
            self._start(message, call)
        else:
            self._waiting.append((message, call))

    def receive(self, data: Buffer) -> None:
        """Take what the server sent, in pieces of any size.

        Raises:
            ProtocolError: it is not HTTP/2.
        """
        received = self._received
        received += data
        start, available = 0, len(received)
        while available - start >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(received, start)
            length = high << 16 | low
            if length > _OUR_FRAME:
                raise ProtocolError("the server does not speak HTTP/2 (is this its gRPC port?)")
            begin = start + _HEAD.size
            end = begin + length
            if end > available:
                break
            self._take(kind, flags, stream, bytes(received[begin:end]))
            start = end
        del received[:start]

    def expire(self, began_before: float) -> None:
        """Fail the calls that began before a time of the monotonic clock."""
        error = failed(Status.DEADLINE_EXCEEDED, "no answer in time")
        # Not in the order in which they began: those that were made again keep their first time.
        late = [call for _, call in self._waiting if call.began < began_before]
        self._waiting = deque(pair for pair in self._waiting if pair[1].began >= began_before)
        for stream, call in list(self._calls.items()):
            if call.began < began_before:
                self._drop(stream)
                self._end(stream, error)
        for call in late:
            call.done(error)

    def fail(self, error: InferenceError) -> None:
        """End all calls: the connection is lost."""
        self.is_closing = True
        calls = [*self._calls.values(), *(call for _, call in self._waiting)]
        self._calls.clear()
        self._waiting.clear()
        self._uploads.clear()
        for call in calls:
            call.done(error)

    def _start(self, message: Message, call: Call) -> None:
        self._latest_stream += 2
        stream = self._latest_stream
        # Stream numbers do not come again: the next call needs a new connection.
        self.is_closing |= stream + 2 > _LAST_STREAM
        self._calls[stream] = call
        call.stream = stream
        block = self._block or self._encoded()
        head = _head(_Frame.HEADERS, _END_HEADERS, stream, len(block)) + block
        length = len(message)
        is_one_frame = length <= min(self._largest_frame, self._window, self._first_window)
        if is_one_frame and not call.stays_open:
            self._window -= length
            self.unsent += (head + _head(_Frame.DATA, _END_STREAM, stream, length), message)
        else:
            self.unsent.append(head)
            self._uploads[stream] = _Upload(
                memoryview(message), self._first_window, stays_open=call.stays_open
            )
            self._upload(stream)

    def _encoded(self) -> bytes:
        """The header block of a call; ready for all calls once it only points into the server's table."""
        block = self._encoder.encode(self._header_fields)
        if block == self._latest_block:
            self._block = block
        self._latest_block = block
        return block

    def _upload(self, stream: int) -> None:
        """Send as much of a request as the server has room for."""
        upload = self._uploads[stream]
        while (length := min(len(upload.rest), self._largest_frame, self._window, upload.window)) > 0:
            flags = _END_STREAM if length == len(upload.rest) and not upload.stays_open else 0
            self.unsent += (_head(_Frame.DATA, flags, stream, length), upload.rest[:length])
            upload.rest = upload.rest[length:]
            self._window -= length
            upload.window -= length
        if not upload.rest and not upload.stays_open:
            del self._uploads[stream]

    def _upload_all(self) -> None:
        for stream in list(self._uploads):
            if self._window <= 0:
                break
            self._upload(stream)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _Frame.DATA:
            self._take_data(flags, stream, payload)
        elif kind == _Frame.HEADERS:
            payload = _unpadded(flags, payload)
            if flags & _PRIORITY:
                if len(payload) < _PRIORITY_BYTES:
                    raise ProtocolError(_TOO_SHORT)
                payload = payload[_PRIORITY_BYTES:]
            self._take_block(flags, stream, payload)
        elif kind == _Frame.CONTINUATION and self._headers_of:
            stream, first_flags, fragments = self._headers_of
            self._take_block(first_flags | flags, stream, fragments + payload)
        elif kind == _Frame.SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _Frame.PING and not flags & _ACK:
            self.unsent.append(_frame(_Frame.PING, _ACK, 0, payload))
        elif kind == _Frame.WINDOW_UPDATE:
            self._widen(stream, _word(payload))
        elif kind == _Frame.RST_STREAM:
            self._uploads.pop(stream, None)
            if call := self._calls.get(stream):
                self._end(stream, _reset(call, _word(payload)))
        elif kind == _Frame.GOAWAY:
            self._go_away(payload)

    def _take_settings(self, payload: bytes) -> None:
        if not self._has_settings:
            self._has_settings, self._most_streams = True, _LAST_STREAM
        if len(payload) % _SETTING.size:
            raise ProtocolError(_TOO_SHORT)
        for setting, value in _SETTING.iter_unpack(payload):
            self._take_setting(setting, value)
        self.unsent.append(_frame(_Frame.SETTINGS, _ACK, 0))
        self._upload_all()
        self._start_waiting()

    def _take_setting(self, setting: int, value: int) -> None:
        if setting == _Setting.HEADER_TABLE_SIZE:
            self._encoder.header_table_size = value
            self._latest_block = self._block = b""
        elif setting == _Setting.MAX_CONCURRENT_STREAMS:
            self._most_streams = value
        elif setting == _Setting.INITIAL_WINDOW_SIZE:
            if value > _LARGEST_WINDOW:
                raise ProtocolError(f"the server has room for {value} bytes, more than there can be")
            for upload in self._uploads.values():
                upload.window += value - self._first_window
            self._first_window = value
        elif setting == _Setting.MAX_FRAME_SIZE:
            if not _DEFAULT_FRAME <= value <= _LARGEST_FRAME:
                raise ProtocolError(f"the server takes frames of {value} bytes, which cannot be")
            self._largest_frame = value

    def _widen(self, stream: int, more: int) -> None:
        """The server has room for more: on the connection, or of one call."""
        if not stream:
            self._window += more
            self._upload_all()
        elif upload := self._uploads.get(stream):
            upload.window += more
            self._upload(stream)

    def _go_away(self, payload: bytes) -> None:
        last_stream, code = _word(payload), _word(payload[_WORD.size :])
        text = payload[2 * _WORD.size :].decode(errors="replace")
        self.farewell = f"HTTP/2 error {code}{': ' if text else ''}{text}"
        self.is_closing = True
        unseen = [self._calls.pop(stream) for stream in list(self._calls) if stream > last_stream]
        unseen += [call for _, call in self._waiting]
        self._waiting.clear()
        for call in unseen:
            call.done(NotProcessed(f"the server closes the connection ({self.farewell})"))

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        # All of a frame counts, its padding too.
        if more := self._inbox.take(len(payload)):
            self.unsent.append(_frame(_Frame.WINDOW_UPDATE, 0, 0, _WORD.pack(more)))
        data = _unpadded(flags, payload)
        call = self._calls.get(stream)
        if call is None:
            return
        if more := call.take(len(payload)):
            self.unsent.append(_frame(_Frame.WINDOW_UPDATE, 0, stream, _WORD.pack(more)))
        call.data = call.data + data if call.data else data
        if call.stays_open:
            _take_messages(call)
        if flags & _END_STREAM:
            self._end(stream, failed(Status.UNKNOWN, "the response has no status"))

    def _take_block(self, flags: int, stream: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            self._headers_of = stream, flags, block
            return
        self._headers_of = None
        # Decoded in any case: every block may change the table that later ones refer to.
        fields = self._known.get(block) or self._decoded(block)
        call = self._calls.get(stream)
        if call is None:
            return
        http_status = fields.get(":status")
        # 1xx is not the answer yet.
        if http_status is not None and not http_status.startswith("1"):
            call.http_status = http_status
        if flags & _END_STREAM:
            self._end(stream, _outcome(call, fields))

    def _decoded(self, block: bytes) -> dict[str, str]:
        try:
            fields = {str(name): str(value) for name, value in self._decoder.decode(block)}
        except hpack.HPACKError as error:
            raise ProtocolError(f"the server sent malformed headers: {error}") from error
        # RFC 7541, 6.1: bytes with the high bit set are fields of the table, and do not change it.
        if min(block, default=0) >= 0x80:
            self._known[block] = fields
        else:
            self._known.clear()
        return fields

    def _end(self, stream: int, outcome: bytes | InferenceError) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            return
        if stream in self._uploads:
            self._drop(stream)
        call.done(outcome)
        if self._waiting:
            self._start_waiting()

    def _drop(self, stream: int) -> None:
        """Tell the server that a call is of no more interest."""
        self._uploads.pop(stream, None)
        self.unsent.append(_frame(_Frame.RST_STREAM, 0, stream, _WORD.pack(_CANCEL)))

    def _start_waiting(self) -> None:
        while self._waiting and len(self._calls) < self._most_streams:
            self._start(*self._waiting.popleft())


def message_prefix(length: int) -> bytes:
    """What comes before the `length` bytes of a gRPC message."""
    return _MESSAGE_HEAD.pack(0, length)


def message_body(message: Message) -> bytes:
    """What comes after the prefix: a copy."""
    return message[_MESSAGE_HEAD.size :]


def _reset(call: Call, code: int) -> InferenceError:
    """Why the server reset a call, by HTTP/2's error code."""
    if code == _REFUSED or (call.has_answered and code in _REOPENED):
        return NotProcessed(f"the server refused the stream (HTTP/2 error {code})")
    status = _RESET_STATUS.get(code, Status.INTERNAL)
    return failed(status, f"the server reset the stream (HTTP/2 error {code})")


def _take_messages(call: Call) -> None:
    """Hand over the whole messages of a call that stays open."""
    while len(call.data) >= _MESSAGE_HEAD.size:
        is_compressed, length = _MESSAGE_HEAD.unpack_from(call.data)
        if is_compressed:
            raise ProtocolError("the server sent a compressed message, which nobody asked for")
        end = _MESSAGE_HEAD.size + length
        if len(call.data) < end:
            break
        message, call.data = call.data[_MESSAGE_HEAD.size : end], call.data[end:]
        call.has_answered = True
        call.done(message)


def _outcome(call: Call, trailers: dict[str, str]) -> bytes | InferenceError:
    """The response, or the error, of a call that has ended."""
    code = trailers.get("grpc-status")
    if code is None:
        status = _HTTP_STATUS.get(call.http_status, Status.UNKNOWN)
        return failed(status, f"no gRPC server answered, but something with HTTP status {call.http_status}")
    if code != "0":
        status = _STATUS.get(code, Status.UNKNOWN)
        return failed(status, unquote(trailers.get("grpc-message", "")))
    if call.stays_open and call.has_answered:
        return NotProcessed("the server ended the call between two messages")
    if call.stays_open:
        return failed(Status.UNAVAILABLE, "the server ended the call")
    data = call.data
    if len(data) < _MESSAGE_HEAD.size:
        return failed(Status.INTERNAL, "the response has no message")
    is_compressed, length = _MESSAGE_HEAD.unpack_from(data)
    if is_compressed or length != len(data) - _MESSAGE_HEAD.size:
        return failed(Status.INTERNAL, "the response is compressed, or not of the length that it states")
    return data[_MESSAGE_HEAD.size :]


def _head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _head(kind, flags, stream, len(payload)) + payload


def _word(payload: bytes) -> int:
    """The first 31 bits."""
    if len(payload) < _WORD.size:
        raise ProtocolError(_TOO_SHORT)
    number: int = _WORD.unpack_from(payload)[0]
    return number & 0x7FFFFFFF


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(_TOO_SHORT)
    return payload[1 : len(payload) - payload[0]]

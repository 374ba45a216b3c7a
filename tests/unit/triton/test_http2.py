"""The bytes of calls and answers, against frames put together and taken apart here."""

import struct
import time

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InferenceError, RequestFailed
from harness.triton import http2
from harness.triton.http2 import Connection, NotProcessed, ProtocolError, message_prefix

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 1, 4, 8, 0x20, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0"), ("grpc-message", "")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def setting(number: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", number, value))


def message(body: bytes) -> bytes:
    return message_prefix(len(body)) + body


class Peer:
    """A connection, and the server's side of it."""

    def __init__(self, settings: bytes = frame(SETTINGS, 0, 0)) -> None:
        self.connection = Connection("host:1", "/a.B/C")
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.outcomes: list[bytes | InferenceError] = []
        self.rest = self.take()
        assert self.rest.startswith(PREFACE)
        self.rest = self.rest[len(PREFACE) :]
        if settings:
            self.connection.receive(settings)
            self.rest += self.take()

    def take(self) -> bytes:
        sent = b"".join(self.connection.unsent)
        self.connection.unsent.clear()
        return sent

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, stream, payload) of all that was sent since the last time."""
        sent, self.rest = self.rest + self.take(), b""
        found = []
        while sent:
            length = int.from_bytes(sent[:3], "big")
            found.append((sent[3], sent[4], int.from_bytes(sent[5:9], "big"), sent[9 : 9 + length]))
            sent = sent[9 + length :]
        return found

    def call(self, body: bytes) -> None:
        self.connection.call(message(body), self.outcomes.append)

    def headers(self, stream: int, fields: list[tuple[str, str]], flags: int = 0) -> bytes:
        return frame(HEADERS, END_HEADERS | flags, stream, self.encoder.encode(fields))

    def answer(self, stream: int, body: bytes) -> bytes:
        return (
            self.headers(stream, FIRST)
            + frame(DATA, 0, stream, message(body))
            + self.headers(stream, OK, END_STREAM)
        )

    def failure(self) -> InferenceError:
        (outcome,) = self.outcomes
        assert isinstance(outcome, InferenceError)
        return outcome


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_a_connection_begins_with_its_settings_and_room_for_large_answers(peer: Peer) -> None:
    (kind, flags, stream, payload), update, acknowledgement = peer.frames()
    assert acknowledgement == (SETTINGS, ACK, 0, b"")
    assert (kind, flags, stream) == (SETTINGS, 0, 0)
    settings = dict(struct.iter_unpack(">HI", payload))
    assert settings[2] == 0, "no pushes"
    assert settings[4] == 2**31 - 1
    assert update == (WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65_535))


def test_a_call_is_headers_and_data(peer: Peer) -> None:
    peer.frames()
    peer.call(b"hello")
    headers, data = peer.frames()
    assert headers[:3] == (HEADERS, END_HEADERS, 1)
    fields = dict(peer.decoder.decode(headers[3]))
    assert fields == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/a.B/C",
        ":authority": "host:1",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    assert data == (DATA, END_STREAM, 1, b"\0\0\0\0\5hello")


def test_calls_wait_for_the_servers_settings() -> None:
    peer = Peer(settings=b"")
    peer.call(b"a")
    peer.call(b"b")
    assert not [sent for sent in peer.frames() if sent[0] in (HEADERS, DATA)]
    peer.connection.receive(setting(3, 1))
    assert [sent[2:] for sent in peer.frames() if sent[0] == DATA] == [(1, message(b"a"))]


def test_later_calls_name_their_headers_by_number(peer: Peer) -> None:
    peer.frames()
    blocks = []
    for _ in range(4):
        peer.call(b"")
        blocks.append(peer.frames()[0][3])
    assert [dict(peer.decoder.decode(block))[":path"] for block in blocks] == ["/a.B/C"] * 4
    assert blocks[1] == blocks[2] == blocks[3]
    assert len(blocks[3]) == 6 < len(blocks[0])


def test_a_server_without_room_for_headers_gets_them_whole(peer: Peer) -> None:
    for _ in range(3):
        peer.call(b"")
    peer.connection.receive(setting(1, 0))
    for _, _, _, block in [sent for sent in peer.frames() if sent[0] == HEADERS]:
        peer.decoder.decode(block)
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    for number in range(3):
        peer.call(b"")
        block = next(sent[3] for sent in peer.frames() if sent[0] == HEADERS)
        assert dict(decoder.decode(block))[":authority"] == "host:1", number


def test_the_table_of_the_answers_headers_may_change_at_any_time(peer: Peer) -> None:
    for number in range(6):
        peer.call(b"")
        # New fields move all others in the table, so that the same bytes mean something else.
        extra = [] if number % 2 else [("x-request", str(number))]
        stream = 2 * number + 1
        peer.connection.receive(
            peer.headers(stream, FIRST)
            + frame(DATA, 0, stream, message(bytes([number])))
            + peer.headers(stream, OK + extra, END_STREAM)
        )
    assert peer.outcomes == [bytes([number]) for number in range(6)]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_answers_may_come_in_pieces_of_any_size(sizes: list[int]) -> None:
    peer = Peer()
    bodies = [b"", b"x", b"abc" * 30]
    for body in bodies:
        peer.call(body)
    # The last first, and one of them in two frames.
    received = (
        peer.answer(5, bodies[2])
        + peer.headers(1, FIRST)
        + peer.answer(3, bodies[1])
        + frame(DATA, 0, 1, message(b"")[:2])
        + frame(DATA, 0, 1, message(b"")[2:])
        + peer.headers(1, OK, END_STREAM)
    )
    start = number = 0
    while start < len(received):
        size = sizes[number % len(sizes)]
        peer.connection.receive(received[start : start + size])
        start, number = start + size, number + 1
    assert peer.outcomes == [bodies[2], bodies[1], bodies[0]]
    assert peer.connection.is_idle


def test_padding_priority_and_continuations_are_understood(peer: Peer) -> None:
    peer.call(b"")
    block = peer.encoder.encode([*FIRST, ("x-long", "y" * 50)])
    peer.connection.receive(
        frame(HEADERS, PADDED | PRIORITY, 1, b"\3" + b"\0\0\0\0\x10" + block[:10] + b"\0\0\0")
        + frame(CONTINUATION, 0, 1, block[10:20])
        + frame(CONTINUATION, END_HEADERS, 1, block[20:])
        + frame(DATA, PADDED, 1, b"\2" + message(b"answer") + b"\0\0")
        + peer.headers(1, OK, END_STREAM)
    )
    assert peer.outcomes == [b"answer"]


def test_a_long_message_waits_for_the_servers_windows(peer: Peer) -> None:
    body = bytes(range(256)) * 400
    whole = message(body)
    peer.frames()
    peer.call(body)
    sent = [one for one in peer.frames() if one[0] == DATA]
    assert [len(one[3]) for one in sent] == [16_384, 16_384, 16_384, 16_383], "the first window"
    # Of the connection alone, and of the stream alone, is no room yet.
    peer.connection.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    assert peer.frames() == []
    peer.connection.receive(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 10)))
    sent += peer.frames()
    assert len(sent[-1][3]) == 10
    # Settings widen the windows of all streams.
    peer.connection.receive(setting(4, 1 << 20))
    sent += [one for one in peer.frames() if one[0] == DATA]
    assert b"".join(one[3] for one in sent) == whole
    assert [one[1] for one in sent] == [0] * (len(sent) - 1) + [END_STREAM]
    # What was used up of the connection's window is missing to the next message.
    peer.call(bytes(1 << 20))
    rest = sum(len(one[3]) for one in peer.frames() if one[0] == DATA)
    assert rest == (1 << 20) + 65_535 - len(whole)


def test_frames_are_as_long_as_the_server_takes_them(peer: Peer) -> None:
    peer.connection.receive(setting(4, 1 << 20) + setting(5, 1 << 17))
    peer.connection.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    peer.frames()
    peer.call(bytes(200_000))
    assert [len(one[3]) for one in peer.frames() if one[0] == DATA] == [1 << 17, 200_005 - (1 << 17)]


def test_calls_beyond_the_servers_limit_wait(peer: Peer) -> None:
    peer.connection.receive(setting(3, 2))
    peer.frames()
    for body in (b"a", b"b", b"c"):
        peer.call(body)
    assert [one[2] for one in peer.frames() if one[0] == DATA] == [1, 3]
    peer.connection.receive(peer.answer(3, b"B"))
    assert [one[2:] for one in peer.frames() if one[0] == DATA] == [(5, message(b"c"))]
    peer.connection.receive(peer.answer(1, b"A") + peer.answer(5, b"C"))
    assert peer.outcomes == [b"B", b"A", b"C"]


def test_a_call_made_on_an_answer_does_not_overtake_those_that_wait(peer: Peer) -> None:
    peer.connection.receive(setting(3, 1))
    peer.frames()
    peer.connection.call(message(b"a"), lambda _: peer.call(b"c"))
    peer.call(b"b")
    peer.connection.receive(peer.answer(1, b"A"))
    peer.connection.receive(peer.answer(3, b"B"))
    sent = [one[2:] for one in peer.frames() if one[0] == DATA]
    assert sent == [(1, message(b"a")), (3, message(b"b")), (5, message(b"c"))]


@pytest.mark.parametrize(
    ("fields", "text", "is_fatal"),
    [
        ([("grpc-status", "14"), ("grpc-message", "gone %C3%BC%25")], "UNAVAILABLE: gone ü%", True),
        ([("grpc-status", "5")], "NOT_FOUND: ", True),
        ([("grpc-status", "3"), ("grpc-message", "bad")], "INVALID_ARGUMENT: bad", False),
        ([("grpc-status", "99"), ("grpc-message", "odd")], "UNKNOWN: odd", False),
        ([("grpc-status", "x")], "UNKNOWN: ", False),
    ],
)
def test_a_status_other_than_ok_is_a_failure(
    peer: Peer, fields: list[tuple[str, str]], text: str, is_fatal: bool
) -> None:
    peer.call(b"")
    peer.connection.receive(peer.headers(1, FIRST + fields, END_STREAM))
    failure = peer.failure()
    assert isinstance(failure, RequestFailed)
    assert (str(failure), failure.is_fatal) == (text, is_fatal)


def test_what_is_no_grpc_server_is_named(peer: Peer) -> None:
    peer.call(b"")
    peer.connection.receive(
        peer.headers(1, [(":status", "503")]) + frame(DATA, END_STREAM, 1, b"<html>overload</html>")
    )
    assert "no status" in str(peer.failure())
    peer.outcomes.clear()
    peer.call(b"")
    peer.connection.receive(peer.headers(3, [(":status", "503"), ("content-type", "text/html")], END_STREAM))
    assert "HTTP status 503" in str(peer.failure())


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\1\0\0\0\1x", b"\0\0\0\0\2x", b"\0\0\0\0\1xy"])
def test_a_malformed_message_is_a_failure(peer: Peer, data: bytes) -> None:
    peer.call(b"")
    peer.connection.receive(
        peer.headers(1, FIRST) + frame(DATA, 0, 1, data) + peer.headers(1, OK, END_STREAM)
    )
    assert str(peer.failure()).startswith("INTERNAL: ")


@pytest.mark.parametrize(("code", "status"), [(8, "CANCELLED"), (2, "INTERNAL"), (11, "RESOURCE_EXHAUSTED")])
def test_a_reset_stream_is_a_failure_of_its_call_alone(peer: Peer, code: int, status: str) -> None:
    peer.call(b"")
    peer.call(b"")
    peer.connection.receive(frame(RST_STREAM, 0, 1, struct.pack(">I", code)))
    assert str(peer.failure()).startswith(f"{status}: ")
    peer.outcomes.clear()
    peer.connection.receive(peer.answer(3, b"fine"))
    assert peer.outcomes == [b"fine"]


def test_a_refused_stream_may_be_sent_again(peer: Peer) -> None:
    peer.call(b"")
    peer.connection.receive(frame(RST_STREAM, 0, 1, struct.pack(">I", 7)))
    assert isinstance(peer.failure(), NotProcessed)
    assert not peer.connection.is_closing


def test_a_server_that_goes_away_answers_what_it_has_seen(peer: Peer) -> None:
    peer.call(b"")
    peer.call(b"")
    peer.connection.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)))
    assert isinstance(peer.failure(), NotProcessed)
    assert peer.connection.is_closing
    assert not peer.connection.is_idle
    peer.connection.receive(peer.answer(1, b"seen"))
    assert peer.outcomes[1] == b"seen"
    assert peer.connection.is_idle


def test_what_a_server_says_when_it_goes_away_reaches_the_message(peer: Peer) -> None:
    peer.call(b"")
    peer.connection.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings"))
    assert "HTTP/2 error 11: too_many_pings" in str(peer.failure())
    assert peer.connection.farewell == "HTTP/2 error 11: too_many_pings"


def test_a_call_that_is_made_again_is_late_by_its_first_time(peer: Peer) -> None:
    now = time.monotonic()
    peer.call(b"new")
    peer.connection.call(message(b"old"), peer.outcomes.append, now - 100)
    peer.connection.expire(now - 50)
    assert str(peer.failure()) == "DEADLINE_EXCEEDED: no answer in time"
    peer.connection.receive(peer.answer(1, b"in time"))
    assert peer.outcomes[1] == b"in time"


@pytest.mark.parametrize("code", [0, 7, 8])
def test_an_open_call_that_is_reset_between_two_messages_may_be_opened_again(peer: Peer, code: int) -> None:
    call = peer.connection.open(message(b"one"), peer.outcomes.append)
    peer.connection.receive(peer.headers(1, FIRST) + frame(DATA, 0, 1, message(b"1")))
    peer.connection.send(call, message(b"two"))
    peer.connection.receive(frame(RST_STREAM, 0, 1, struct.pack(">I", code)))
    assert peer.outcomes[0] == b"1"
    assert isinstance(peer.outcomes[1], NotProcessed)


def test_an_open_call_that_ends_between_two_messages_may_be_opened_again(peer: Peer) -> None:
    peer.connection.open(message(b"one"), peer.outcomes.append)
    peer.connection.receive(peer.headers(1, FIRST) + frame(DATA, 0, 1, message(b"1")))
    peer.connection.receive(peer.headers(1, OK, END_STREAM))
    assert isinstance(peer.outcomes[1], NotProcessed)


def test_an_open_call_that_ends_before_its_first_answer_has_failed(peer: Peer) -> None:
    peer.connection.open(message(b"one"), peer.outcomes.append)
    peer.connection.receive(peer.headers(1, FIRST) + peer.headers(1, OK, END_STREAM))
    assert str(peer.failure()) == "UNAVAILABLE: the server ended the call"


def any_frames() -> st.SearchStrategy[list[bytes]]:
    """Frames of any kind with any payload, some of them as a server would send them."""
    random = st.builds(
        frame,
        st.sampled_from([*range(10), 77]),
        st.integers(0, 255),
        st.sampled_from([0, 1, 2, 3, 99]),
        st.one_of(
            st.binary(max_size=40),
            st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2**32 - 1)), max_size=2).map(
                lambda pairs: b"".join(struct.pack(">HI", *pair) for pair in pairs)
            ),
        ),
    )
    return st.lists(random, min_size=1, max_size=12)


@settings(max_examples=500)
@given(any_frames())
def test_whatever_comes_only_a_protocol_error_comes_out(frames: list[bytes]) -> None:
    peer = Peer()
    peer.call(b"x" * 100)
    peer.connection.open(message(b"y"), peer.outcomes.append)
    try:
        for one in frames:
            peer.connection.receive(one)
            peer.call(b"z")
    except ProtocolError as error:
        peer.connection.fail(error)
    assert all(isinstance(outcome, bytes | InferenceError) for outcome in peer.outcomes)


def test_pings_and_settings_are_acknowledged(peer: Peer) -> None:
    peer.frames()
    peer.connection.receive(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"87654321"))
    peer.connection.receive(frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0) + frame(77, 0, 0, b"unknown"))
    assert peer.frames() == [(PING, ACK, 0, b"12345678"), (SETTINGS, ACK, 0, b"")]


def test_an_old_call_expires_and_its_late_answer_is_passed_over(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(http2.time, "monotonic", lambda: now)
    peer.connection.receive(setting(3, 2))
    peer.call(b"first")
    now = 10.0
    peer.call(b"second")
    peer.call(b"waits")
    peer.frames()
    peer.connection.expire(5.0)
    assert str(peer.failure()).startswith("DEADLINE_EXCEEDED")
    sent = peer.frames()
    assert sent[0] == (RST_STREAM, 0, 1, struct.pack(">I", 8))
    assert sent[-1][3] == message(b"waits"), "there is room now"
    peer.connection.receive(peer.answer(1, b"late") + peer.answer(3, b"in time"))
    assert peer.outcomes[1:] == [b"in time"]


def test_an_answer_before_the_message_was_sent_ends_the_sending(peer: Peer) -> None:
    peer.call(bytes(100_000))
    peer.frames()
    peer.connection.receive(
        peer.headers(1, [*FIRST, ("grpc-status", "8"), ("grpc-message", "too large")], END_STREAM)
    )
    assert str(peer.failure()) == "RESOURCE_EXHAUSTED: too large"
    assert peer.frames() == [(RST_STREAM, 0, 1, struct.pack(">I", 8))]
    peer.connection.receive(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    assert peer.frames() == []


def test_room_for_answers_is_renewed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "_RENEW_AT", 1000)
    peer.call(b"")
    peer.frames()
    peer.connection.receive(peer.headers(1, FIRST) + frame(DATA, 0, 1, bytes(900)))
    assert peer.frames() == []
    peer.connection.receive(frame(DATA, 0, 1, bytes(200)))
    # Of the connection and, since a call may stay open for as long as a run takes, of the call.
    assert peer.frames() == [(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1100)) for stream in (0, 1)]
    peer.connection.receive(frame(DATA, PADDED, 7, b"\x02" + bytes(999)))
    assert peer.frames() == [(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1000))]


@pytest.mark.parametrize(
    ("received", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak HTTP/2"),
        (frame(RST_STREAM, 0, 1, b"\0"), "too short"),
        (frame(SETTINGS, 0, 0, b"\0"), "too short"),
        (frame(DATA, PADDED, 1), "too short"),
        (frame(DATA, PADDED, 99), "too short"),
        (frame(DATA, PADDED, 1, b"\x05abc"), "too short"),
        (frame(HEADERS, END_HEADERS | PRIORITY, 1, b"1234"), "too short"),
        (frame(GOAWAY, 0, 0, b"\0\0\0\0"), "too short"),
        (setting(5, 0), "frames of 0 bytes"),
        (setting(4, 2**31), "more than there can be"),
        (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), "malformed headers"),
    ],
)
def test_what_is_not_http2_is_an_error(peer: Peer, received: bytes, text: str) -> None:
    peer.call(b"")
    with pytest.raises(ProtocolError, match=text):
        peer.connection.receive(received)


def test_a_lost_connection_fails_all_calls_once(peer: Peer) -> None:
    peer.connection.receive(setting(3, 1))
    for _ in range(3):
        peer.call(b"")
    error = http2.failed(http2.Status.UNAVAILABLE, "lost")
    peer.connection.fail(error)
    peer.connection.fail(error)
    assert peer.outcomes == [error] * 3
    assert peer.connection.is_closing
    assert peer.connection.is_idle


def test_a_call_that_stays_open_takes_one_message_after_the_other(peer: Peer) -> None:
    peer.frames()
    call = peer.connection.open(message(b"a"), peer.outcomes.append)
    assert [sent[:3] for sent in peer.frames()] == [(HEADERS, END_HEADERS, 1), (DATA, 0, 1)]
    first = peer.headers(1, FIRST) + frame(DATA, 0, 1, message(b"A")[:3])
    peer.connection.receive(first)
    assert not peer.outcomes
    peer.connection.receive(frame(DATA, 0, 1, message(b"A")[3:]))
    peer.connection.send(call, message(b"b"))
    assert peer.frames() == [(DATA, 0, 1, message(b"b"))]
    peer.connection.receive(frame(DATA, 0, 1, message(b"B")))
    assert peer.outcomes == [b"A", b"B"]
    peer.connection.receive(peer.headers(1, [("grpc-status", "5"), ("grpc-message", "gone")], END_STREAM))
    assert str(peer.outcomes[2]) == "NOT_FOUND: gone"
    assert peer.connection.is_idle


def test_the_messages_of_an_open_call_share_the_servers_window() -> None:
    peer = Peer(setting(4, 100))
    peer.frames()
    call = peer.connection.open(message(bytes(75)), peer.outcomes.append)
    assert len(peer.frames()[-1][3]) == 80
    peer.connection.receive(peer.headers(1, FIRST) + frame(DATA, 0, 1, message(b"")))
    peer.connection.send(call, message(bytes(45)))
    assert [len(sent[3]) for sent in peer.frames()] == [20]
    peer.connection.receive(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000)))
    assert [(sent[1], len(sent[3])) for sent in peer.frames()] == [(0, 30)]


def test_an_open_call_is_late_by_its_latest_message(peer: Peer) -> None:
    call = peer.connection.open(message(b"a"), peer.outcomes.append)
    opened = call.began
    peer.connection.receive(peer.headers(1, FIRST) + frame(DATA, 0, 1, message(b"A")))
    peer.connection.send(call, message(b"b"))
    peer.connection.expire(call.began)
    assert opened < call.began
    assert peer.outcomes == [b"A"]
    peer.connection.expire(call.began + 1)
    assert str(peer.outcomes[1]).startswith("DEADLINE_EXCEEDED")
    assert peer.frames()[-1][:3] == (RST_STREAM, 0, 1)


def test_an_open_call_takes_no_compressed_message(peer: Peer) -> None:
    peer.connection.open(message(b"a"), peer.outcomes.append)
    with pytest.raises(ProtocolError, match="compressed"):
        peer.connection.receive(peer.headers(1, FIRST) + frame(DATA, 0, 1, b"\1" + message(b"A")[1:]))

"""Flow control, with the `h2` library as the server: whatever is sent in either direction, the books
balance."""

from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InferenceError
from harness.triton import http2
from harness.triton.http2 import Connection, message_prefix

RENEW_AT = 40_000


def message(body: bytes) -> bytes:
    return message_prefix(len(body)) + body


class H2Server:
    """Answers each message of a call by one of a size that it is told, as far as the client has room for
    it."""

    def __init__(self, connection: Connection, window: int) -> None:
        self.client = connection
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.server = h2.connection.H2Connection(config)
        self.server.initiate_connection()
        self.server.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.received: dict[int, bytes] = {}
        self.unsent: dict[int, bytes] = {}
        # h2 takes the first acknowledgement for one of all its settings.
        self.exchange()

    def exchange(self) -> None:
        """Until neither side has more to say."""
        while True:
            sent = b"".join(self.client.unsent)
            self.client.unsent.clear()
            for event in self.server.receive_data(sent) if sent else ():
                if isinstance(event, h2.events.DataReceived):
                    self.received[event.stream_id] = self.received.get(event.stream_id, b"") + event.data
                    self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            for stream in self.unsent:
                self._send(stream)
            answer = self.server.data_to_send()
            if answer:
                self.client.receive(answer)
            if not answer and not self.client.unsent:
                return

    def answer(self, stream: int, body: bytes) -> None:
        if stream not in self.unsent:
            self.server.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self.unsent[stream] = self.unsent.get(stream, b"") + message(body)

    def end(self, stream: int) -> None:
        assert not self.unsent.pop(stream)
        self.server.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def _send(self, stream: int) -> None:
        rest = self.unsent[stream]
        while rest:
            room = self.server.local_flow_control_window(stream)
            length = min(len(rest), room, self.server.max_outbound_frame_size)
            if length <= 0:
                break
            self.server.send_data(stream, rest[:length])
            rest = rest[length:]
        self.unsent[stream] = rest


@pytest.fixture(autouse=True, scope="module")
def small_windows() -> Iterator[None]:
    """As a run of hours meets them, in bytes that a test can send."""
    patch = pytest.MonkeyPatch()
    patch.setattr(http2, "_LARGEST_WINDOW", 2 * RENEW_AT)
    patch.setattr(http2, "_RENEW_AT", RENEW_AT)
    yield
    patch.undo()


SIZE = st.integers(0, 3 * RENEW_AT)


@settings(max_examples=60)
@given(st.lists(st.tuples(SIZE, SIZE), min_size=1, max_size=8))
def test_an_open_call_goes_on_whatever_was_sent_and_answered_before(sizes: list[tuple[int, int]]) -> None:
    outcomes: list[bytes | InferenceError] = []
    connection = Connection("host:1", "/a.B/C")
    server = H2Server(connection, 20_000)
    call = None
    for number, (asked, answered) in enumerate(sizes):
        request, response = (bytes([number]) * size for size in (asked, answered))
        if call is None:
            call = connection.open(message(request), outcomes.append)
        else:
            connection.send(call, message(request))
        server.exchange()
        assert server.received[call.stream].endswith(message(request))
        server.answer(call.stream, response)
        server.exchange()
        assert outcomes[number:] == [response]
    assert server.received[call.stream] == b"".join(
        message(bytes([n]) * size) for n, (size, _) in enumerate(sizes)
    )


@settings(max_examples=60)
@given(st.lists(SIZE, min_size=1, max_size=6), st.lists(SIZE, min_size=1, max_size=6))
def test_many_calls_share_a_connection_that_never_runs_dry(asked: list[int], answered: list[int]) -> None:
    outcomes: dict[int, bytes | InferenceError] = {}
    connection = Connection("host:1", "/a.B/C")
    server = H2Server(connection, 20_000)
    for number, size in enumerate(asked):
        connection.call(
            message(bytes(size)), lambda outcome, number=number: outcomes.update({number: outcome})
        )
    server.exchange()
    streams = list(server.received)
    assert [len(server.received[stream]) - 5 for stream in streams] == asked
    wanted = {number: bytes([number]) * answered[number % len(answered)] for number in range(len(asked))}
    for number, stream in enumerate(streams):
        server.answer(stream, wanted[number])
    server.exchange()
    for stream in streams:
        server.end(stream)
    server.exchange()
    assert outcomes == wanted
    assert connection.is_idle

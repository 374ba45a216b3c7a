"""More than one process to send requests, where one interpreter lock is the limit.

The process that runs LoadGen keeps slots and completions (see `sut`); each client process asks one server and
is an `Endpoint` to it. What they say to each other over a socket pair is a few bytes a sample, sent together
for all that happened in one turn of an event loop:

    to the client     tag, first row, sample indices    (the samples: shared memory, or the client's own copy)
    from the client   tag, status, bytes of each payload, payloads    (or the failure's text)
"""

import array
import asyncio
import dataclasses
import functools
import json
import logging
import queue
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.answers.payloads import payload_floats
from harness.data.sample_file import SampleFile
from harness.errors import InferenceError, RequestFailed
from harness.machine import command
from harness.machine.from_json import loads
from harness.machine.processes import start_module
from harness.models import manifest
from harness.run.worker.qsl import MessageStore, Requests, Samples, SharedMemoryRequests
from harness.run.worker.sut import ServerEndpoint, Slot
from harness.triton.address import Address
from harness.triton.channels import AnyChannel, open_channel
from harness.triton.client import TritonClient
from harness.triton.http2 import Done

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_LOAD_TAG = 0
"""Tag of what is no query but the indices of the samples to load."""
_ANSWERED, _FAILED, _GONE = range(3)
_ENDED = RequestFailed("a client process has ended", is_fatal=True)


@dataclass(frozen=True)
class Assignment:
    """What a client process must know."""

    server: Address
    entry: str
    entry_dir: str
    samples: str
    """Path of the .npy array of all preprocessed samples, read where they travel in messages."""
    segment: str
    """Shared memory that the server has mapped; empty for messages."""
    batch: int
    timeout_s: float


class Frames(asyncio.Protocol):
    """Messages of any length over a stream."""

    def __init__(self, on_frame: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_frame, self._on_end = on_frame, on_end
        self._received = bytearray()
        self._unsent: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Asyncio's callback."""
        self._on_end()

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        received = self._received
        received += data
        start = 0
        while len(received) - start >= _LENGTH.size:
            begin = start + _LENGTH.size
            end = begin + _LENGTH.unpack_from(received, start)[0]
            if end > len(received):
                break
            self._on_frame(bytes(received[begin:end]))
            start = end
        del received[:start]

    def send(self, *parts: bytes) -> None:
        """Send a message, together with all others of this turn of the event loop."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += (_LENGTH.pack(sum(map(len, parts))), *parts)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def close(self) -> None:
        """Close the stream, which ends the other side."""
        self._transport.close()


class ProcessEndpoint:
    """A client process, as the hot path sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, assignment: Assignment) -> None:
        """Start the process; it ends with the calling thread."""
        self._loop = loop
        self.is_shared = bool(assignment.segment)
        """Whether its samples lie in shared memory, instead of in the process."""
        self._under_way: dict[int, Done] = {}
        self._last_tag = _LOAD_TAG
        self._has_ended = False
        ours, theirs = socket.socketpair()
        with theirs:
            words = json.dumps(dataclasses.asdict(assignment)), str(theirs.fileno())
            self._process = start_module(
                "harness.run.worker.client_process", *words, stdout=sys.stderr, pass_fds=(theirs.fileno(),)
            )
        self._frames = asyncio.run_coroutine_threadsafe(self._connect(ours), loop).result()

    async def _connect(self, ours: socket.socket) -> Frames:
        _, frames = await self._loop.create_connection(
            lambda: Frames(self._on_answer, self._on_end), sock=ours
        )
        return frames

    def ask(self, slot: Slot) -> None:
        """See `sut.Endpoint`."""
        self._last_tag = self._last_tag % 0xFFFFFFFF + 1
        self._send(self._last_tag, slot.row, slot.indices, slot.answered)

    def read(self, slot: Slot, answer: bytes) -> Sequence[int]:
        """See `sut.Endpoint`."""
        count = len(slot.indices)
        status = _HEAD.unpack_from(answer)[1]
        if status != _ANSWERED:
            raise RequestFailed(answer[_HEAD.size :].decode(), is_fatal=status == _GONE)
        sizes: list[int] = np.frombuffer(answer, np.uint32, count, _HEAD.size).tolist()
        start = _HEAD.size + 4 * count
        for row, size in zip(slot.payload, sizes, strict=False):
            row[: size // 4] = np.frombuffer(answer, np.float32, size // 4, start)
            start += size
        return sizes

    def load(self, indices: Sequence[int]) -> None:
        """Have the process load these samples as its rows; blocks the calling thread, not the loop's.

        Raises:
            RequestFailed: the process has ended.
        """
        answers: queue.SimpleQueue[bytes | InferenceError] = queue.SimpleQueue()
        self._loop.call_soon_threadsafe(self._send, _LOAD_TAG, 0, indices, answers.put)
        answer = answers.get()
        if isinstance(answer, InferenceError):
            raise answer
        status = _HEAD.unpack_from(answer)[1]
        if status != _ANSWERED:
            raise RequestFailed(answer[_HEAD.size :].decode(), is_fatal=True)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._loop.call_soon_threadsafe(self._frames.close)
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, tag: int, row: int, indices: Sequence[int], done: Done) -> None:
        if self._has_ended:
            self._loop.call_soon(done, _ENDED)
            return
        self._under_way[tag] = done
        self._frames.send(_HEAD.pack(tag, row), array.array("q", indices).tobytes())

    def _on_answer(self, frame: bytes) -> None:
        self._under_way.pop(_HEAD.unpack_from(frame)[0])(frame)

    def _on_end(self) -> None:
        self._has_ended = True
        under_way, self._under_way = self._under_way, {}
        for done in under_way.values():
            done(_ENDED)


class ProcessStore:
    """Samples that travel in messages of a client process, which keeps its own copy."""

    def __init__(self, endpoint: ProcessEndpoint) -> None:
        self._endpoint = endpoint

    def fill(self, _samples: Samples, indices: Sequence[int]) -> None:
        """Have the process read the samples."""
        self._endpoint.load(indices)

    def close(self) -> None:
        """Nothing is held here."""


class _Client:
    """The client process's side."""

    def __init__(self, assignment: Assignment, client: TritonClient, channel: AnyChannel) -> None:
        variant = manifest.load(Path(assignment.entry_dir)).variant
        self._samples = SampleFile(Path(assignment.samples))
        entry, batch = assignment.entry, assignment.batch
        self._messages = MessageStore(entry, variant, batch)
        requests: Requests = self._messages
        if assignment.segment:
            requests = SharedMemoryRequests(entry, variant, assignment.segment, batch)
        self._endpoint = ServerEndpoint(client, channel, requests, variant, assignment.timeout_s)
        self._batch, self._payload_floats = batch, payload_floats(variant)
        self._free: list[Slot] = []
        self.has_ended = asyncio.Event()
        self.frames = Frames(self._on_question, self.has_ended.set)

    def _on_question(self, frame: bytes) -> None:
        tag, row = _HEAD.unpack_from(frame)
        indices = array.array("q", frame[_HEAD.size :]).tolist()
        try:
            if tag == _LOAD_TAG:
                self._messages.fill(self._samples, indices)
                self.frames.send(_HEAD.pack(_LOAD_TAG, _ANSWERED))
            else:
                slot = self._free.pop() if self._free else Slot(0, self._batch, self._payload_floats)
                slot.row, slot.indices = row, indices
                slot.answered = functools.partial(self._answered, tag, slot)
                self._endpoint.ask(slot)
        except Exception as error:  # noqa: BLE001 - boundary to the other process
            self._fail(tag, error)

    def _answered(self, tag: int, slot: Slot, outcome: bytes | InferenceError) -> None:
        try:
            if isinstance(outcome, InferenceError):
                raise outcome
            sizes = self._endpoint.read(slot, outcome)
            payloads = [
                values[: size // 4].tobytes() for values, size in zip(slot.payload, sizes, strict=False)
            ]
        except Exception as error:  # noqa: BLE001 - boundary to the other process
            self._fail(tag, error)
        else:
            self.frames.send(_HEAD.pack(tag, _ANSWERED), array.array("I", sizes).tobytes(), *payloads)
        self._free.append(slot)

    def _fail(self, tag: int, error: Exception) -> None:
        is_fatal = isinstance(error, RequestFailed) and error.is_fatal
        self.frames.send(_HEAD.pack(tag, _GONE if is_fatal else _FAILED), str(error).encode())


async def _serve(assignment: Assignment, connection: socket.socket) -> None:
    with TritonClient(assignment.server) as client:
        channel = await open_channel(assignment.server, assignment.timeout_s)
        served = _Client(assignment, client, channel)
        await asyncio.get_running_loop().create_connection(lambda: served.frames, sock=connection)
        await served.has_ended.wait()


def main() -> int:
    """Serve the process that started this one until it closes the connection; return the exit code."""

    def body() -> None:
        assignment = loads(Assignment, sys.argv[1])
        asyncio.run(_serve(assignment, socket.socket(fileno=int(sys.argv[2]))))

    return command.run(body, level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())

"""The hot path: a LoadGen query becomes requests, and each response completes its samples.

    issue (LoadGen's thread)      query -> the event loop, or answered at once where one request is under way
    _take                         the next neighbouring samples of a query -> a free slot
    Endpoint.ask                  ready bytes -> harness.triton.channel
    _answered, Endpoint.read      bytes -> check -> payloads
    _finish                       payloads -> LoadGen, and a note in the timeline

Everything else was decided before the test: requests are serialised but for where their samples lie, slots
with their payload buffers exist from the start. No side may let an exception out: LoadGen would crash the
process, an event loop would drop it and LoadGen would wait for ever. A failed sample is completed empty, and
counted.

Measured with a null model: with 64 requests in flight, one event loop that sends and receives whatever is
there in one system call each answers 1.7 times as many queries as gRPC's event loop, and that 1.5 times as
many as gRPC's threads, which fight for the interpreter. One request in flight wakes no other thread than
LoadGen's own, which blocks; sent as a message of one long call it is answered in 0.85 of a call's time.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Protocol

import numpy as np

from harness.answers.payloads import decoder
from harness.errors import InferenceError, RequestFailed
from harness.models.spec import Variant
from harness.run.worker.books import Answered
from harness.run.worker.job import Failures
from harness.run.worker.qsl import Requests, SampleLibrary
from harness.triton.channels import AnyChannel
from harness.triton.client import TritonClient
from harness.triton.http2 import Done
from harness.triton.messages import ResponseReader

Complete = Callable[[Sequence[int], int, int, Sequence[int]], None]
"""(response ids, address of the first payload, bytes from one payload to the next, bytes of each payload).

Failed samples have 0 bytes, and so have images without a detection.
"""
Record = Callable[[int, int, int], None]
"""(when the query was issued, in ns; when the request was answered; samples in it)."""
_GONE = RequestFailed("not sent, since the server is gone or the test given up", is_fatal=True)


class Slot:
    """Room for one request in flight; `uses` tells the watchdog whether it is still the same request."""

    answered: Done
    """Hears what came of the request."""

    __slots__ = (
        "address",
        "answered",
        "endpoint",
        "indices",
        "issued_ns",
        "payload",
        "response_ids",
        "row",
        "stride",
        "uses",
    )

    def __init__(self, endpoint: int, batch: int, payload_floats: int) -> None:
        self.endpoint = endpoint
        self.payload = np.empty((batch, payload_floats), np.float32)
        self.address = self.payload.ctypes.data
        self.stride = self.payload.strides[0]
        self.row = 0
        self.issued_ns = 0
        self.response_ids: Sequence[int] = ()
        self.indices: Sequence[int] = ()
        self.uses = 0


class Endpoint(Protocol):
    """Answers requests: a server, or a client process that asks one."""

    def ask(self, slot: Slot) -> None:
        """Ask for the samples from `slot.row` on; `slot.answered` hears what came, later."""

    def read(self, slot: Slot, answer: bytes) -> Sequence[int]:
        """Fill `slot.payload` from what came; bytes of each sample's payload.

        Raises:
            InferenceError: it is malformed, or says that the request failed.
        """


class ServerEndpoint:
    """One server, asked by this process."""

    def __init__(
        self,
        client: TritonClient,
        channel: AnyChannel,
        requests: Requests,
        variant: Variant,
        timeout_s: float,
    ) -> None:
        """`timeout_s`: after which a request that blocks counts as lost."""
        self._infer_now, self._infer = client.infer_now, channel.infer
        self._requests, self._timeout_s = requests, timeout_s
        self._reader, self._decode = ResponseReader(variant.requested_outputs), decoder(variant)

    def ask(self, slot: Slot) -> None:
        """See `Endpoint`."""
        self._infer(self._requests.request(slot.row, len(slot.indices)), slot.answered)

    def read(self, slot: Slot, answer: bytes) -> Sequence[int]:
        """See `Endpoint`."""
        tensors = self._reader.read(answer, len(slot.indices))
        return self._decode(tensors, slot.indices, slot.payload)

    def answer_now(self, slot: Slot) -> Sequence[int]:
        """Both in one, blocking the calling thread."""
        request = self._requests.request(slot.row, len(slot.indices))
        return self.read(slot, self._infer_now(request, self._timeout_s))


class Sut:
    """LoadGen's system under test: a model on one or several Triton servers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoints: Sequence[Endpoint],
        library: SampleLibrary,
        complete: Complete,
        *,
        payload_floats: int,
        batch: int,
        in_flight: int,
        answer_now: Callable[[Slot], Sequence[int]] | None,
        record: Record,
        places: Sequence[str] = (),
    ) -> None:
        """Prepare all that queries need.

        Args:
            loop: the running event loop that the endpoints belong to.
            endpoints: where requests go; to the one with the fewest under way first, at a tie in turns.
            library: the samples, which LoadGen loads and queries by index.
            complete: hands payloads to LoadGen.
            payload_floats: most float32 in the payload of one sample.
            batch: most samples in one request.
            in_flight: most requests under way at each endpoint; what is beyond waits here, so that one large
                query cannot flood a server.
            answer_now: the only endpoint's, where it has one, and one request in flight.
            record: notes each request just before LoadGen hears of its answer.
            places: which server each endpoint asks, where that must be told of one that fails.
        """
        self._loop, self._endpoints, self._library, self._complete = loop, endpoints, library, complete
        self._answer_now, self._record, self._places = answer_now, record, places
        self._batch = batch
        self.failures = Failures()
        self.issued_samples = 0
        numbers = range(len(endpoints))
        self._completed, self._failed = [0 for _ in numbers], [0 for _ in numbers]
        """Samples, by endpoint; the first with the second."""
        self._idle = [[Slot(number, batch, payload_floats) for _ in range(in_flight)] for number in numbers]
        self._turns = list(self._idle)
        """The same, the endpoint that was given a new query longest ago first."""
        self.slots = [slot for slots in self._idle for slot in slots]
        for slot in self.slots:
            slot.answered = functools.partial(self._answered, slot)
        self._waiting: deque[tuple[list[int], list[int], int]] = deque()
        """Response ids, sample indices and time of issue of queries."""
        self._start = 0
        """How much of the first waiting query was taken."""

    def issue(self, response_ids: list[int], indices: list[int]) -> None:
        """Send a query."""
        query = response_ids, indices, perf_counter_ns()
        self.issued_samples += len(indices)
        if self._answer_now is None:
            self._loop.call_soon_threadsafe(self._accept, query)
            return
        self._waiting.append(query)
        slot = self.slots[0]
        while self._take(slot):
            try:
                sizes = self._answer_now(slot)
            except Exception as error:  # noqa: BLE001 - boundary to LoadGen, see above
                self._fail(slot, error)
            else:
                self._finish(slot, sizes)

    @property
    def completed_samples(self) -> int:
        """Answered or failed."""
        return sum(self._completed)

    def answered(self) -> list[Answered]:
        """What each endpoint has answered, in their order."""
        requests = [0 for _ in self._idle]
        for slot in self.slots:
            requests[slot.endpoint] += slot.uses
        counts = zip(self._completed, self._failed, requests, strict=True)
        return [Answered(completed - failed, count) for completed, failed, count in counts]

    def flush(self) -> None:
        """Nothing is held back: requests are sent as soon as slots are free."""

    def give_up(self) -> None:
        """Send nothing more: what is asked from now on fails at once."""
        self.failures.is_fatal = True

    def _accept(self, query: tuple[list[int], list[int], int]) -> None:
        """Give a query to free slots; what is left waits until one of them has its answer."""
        self._waiting.append(query)
        # At a tie `max` takes the first.
        while self._waiting and (idle := max(self._turns, key=len)):
            self._turns.remove(idle)
            self._turns.append(idle)
            self._ask_next(idle.pop())

    def _ask_next(self, slot: Slot) -> None:
        """Send the next request from a slot; where none waits, the slot is idle."""
        while self._take(slot):
            try:
                self._endpoints[slot.endpoint].ask(slot)
            except Exception as error:  # noqa: BLE001 - boundary to the event loop, see above
                self._fail(slot, error)
            else:
                return
        self._idle[slot.endpoint].append(slot)

    def _answered(self, slot: Slot, outcome: bytes | InferenceError) -> None:
        try:
            if isinstance(outcome, InferenceError):
                raise outcome
            sizes = self._endpoints[slot.endpoint].read(slot, outcome)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(slot, error)
        else:
            self._finish(slot, sizes)
        self._ask_next(slot)

    def _take(self, slot: Slot) -> bool:
        """Put the next request's samples into a slot; False where none waits."""
        while self._waiting:
            response_ids, indices, slot.issued_ns = self._waiting[0]
            start, count = self._start, 1
            try:
                slot.row, count = self._library.first_run(indices, start, self._batch)
                error: Exception | None = _GONE if self.failures.is_fatal else None
            except Exception as unknown:  # noqa: BLE001 - as above
                error = unknown
            self._start += count
            slot.response_ids = response_ids[start : self._start]
            slot.indices = indices[start : self._start]
            slot.uses += 1
            if self._start >= len(indices):
                self._waiting.popleft()
                self._start = 0
            if error is None:
                return True
            self._fail(slot, error)
        return False

    def _finish(self, slot: Slot, sizes: Sequence[int]) -> None:
        # Before LoadGen is told: with the last answer it ends the test.
        self._record(slot.issued_ns, perf_counter_ns(), len(slot.response_ids))
        self._completed[slot.endpoint] += len(slot.response_ids)
        self._complete(slot.response_ids, slot.address, slot.stride, sizes)
        slot.response_ids = ()

    def _fail(self, slot: Slot, error: Exception) -> None:
        failures = self.failures
        if not failures.requests:
            place = f" (of the server at {self._places[slot.endpoint]})" if self._places else ""
            failures.first = f"{type(error).__name__}: {error}{place}"
            failures.first_sample_indices = tuple(slot.indices)
        failures.requests += 1
        failures.samples += len(slot.response_ids)
        self._failed[slot.endpoint] += len(slot.response_ids)
        failures.is_fatal |= isinstance(error, RequestFailed) and error.is_fatal
        self._finish(slot, [0] * len(slot.response_ids))

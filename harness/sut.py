"""The hot path: a LoadGen query becomes requests, and each response completes its samples.

    issue (LoadGen's thread)        a free slot -> ready bytes -> gRPC
    _on_answer (gRPC's thread)      bytes -> check -> payload -> LoadGen -> the slot is free again

Everything else was decided before the test: requests are serialised when samples are loaded, slots with
their payload buffers exist from the start. Neither side may let an exception out: LoadGen would crash the
process, gRPC would drop it and LoadGen would wait for ever. A failed sample is completed empty, and counted.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from harness.client import RequestFailed, TritonClient
from harness.postprocess import Decoder
from harness.samples import SampleLibrary
from harness.wire import ResponseReader

Complete = Callable[[Sequence[int], int, int, Sequence[int]], None]
"""(response ids, address of the first payload, bytes from one payload to the next, bytes of each payload).

Failed samples have 0 bytes, and so have images without a detection.
"""


@dataclass
class Failures:
    """What went wrong, if anything did; any failure makes the run invalid."""

    samples: int = 0
    requests: int = 0
    first: str = ""
    first_sample_indices: tuple[int, ...] = ()
    is_fatal: bool = False
    """No later request can succeed: those are failed without being sent."""


class Slot:
    """Room for one request in flight; `uses` tells the watchdog whether it is still the same request."""

    __slots__ = ("address", "indices", "on_answer", "payload", "response_ids", "stride", "uses")

    def __init__(self, batch: int, payload_floats: int, on_answer: Callable[["Slot", Any], None]) -> None:
        self.payload = np.empty((batch, payload_floats), np.float32)
        self.address = self.payload.ctypes.data
        self.stride = self.payload.strides[0]
        self.response_ids: Sequence[int] = ()
        self.indices: Sequence[int] = ()
        self.uses = 0
        self.on_answer = lambda call: on_answer(self, call)


class Sut:
    """LoadGen's system under test: a model on a Triton server."""

    def __init__(
        self,
        client: TritonClient,
        library: SampleLibrary,
        reader: ResponseReader,
        decode: Decoder,
        complete: Complete,
        *,
        payload_floats: int,
        batch: int,
        in_flight: int,
        timeout_s: float,
    ) -> None:
        """Prepare all that queries need.

        Args:
            client: where requests go.
            library: the samples, which LoadGen loads and queries by index.
            reader: checks responses and finds the tensors in them.
            decode: tensors to payloads.
            complete: hands payloads to LoadGen.
            payload_floats: most float32 in the payload of one sample.
            batch: most samples in one request.
            in_flight: most requests under way; `issue` blocks beyond, so that one large query cannot
                flood the server.
            timeout_s: after which a request counts as lost.
        """
        self._client, self._library, self._reader = client, library, reader
        self._decode, self._complete = decode, complete
        self._batch, self._timeout_s = batch, timeout_s
        self._failures_lock = threading.Lock()
        self.failures = Failures()
        self.slots = [Slot(batch, payload_floats, self._on_answer) for _ in range(in_flight)]
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self.slots:
            self._free.put(slot)

    def issue(self, response_ids: list[int], indices: list[int]) -> None:
        """Send a query, cut into requests of neighbouring rows."""
        start = 0
        while start < len(indices):
            slot = self._free.get()
            count = 1
            try:
                row, count = self._library.first_run(indices, start, self._batch)
                slot.response_ids = response_ids[start : start + count]
                slot.indices = indices[start : start + count]
                slot.uses += 1
                if self.failures.is_fatal:
                    raise RequestFailed("not sent, since the server is gone", is_fatal=True)
                request = self._library.store.request(row, count)
                self._client.infer(request, slot.on_answer, self._timeout_s)
            except Exception as error:  # noqa: BLE001 - boundary to LoadGen, see above
                self._fail(slot, error)
            start += count

    def flush(self) -> None:
        """Nothing is held back: every request was sent by `issue`."""

    def _on_answer(self, slot: Slot, call: Any) -> None:
        """Complete the samples of a request, whatever became of it."""
        try:
            tensors = self._reader.read(self._client.response(call), len(slot.response_ids))
            sizes = self._decode(tensors, slot.indices, slot.payload)
        except Exception as error:  # noqa: BLE001 - boundary to gRPC, see above
            self._fail(slot, error)
        else:
            self._finish(slot, sizes)

    def _finish(self, slot: Slot, sizes: Sequence[int]) -> None:
        self._complete(slot.response_ids, slot.address, slot.stride, sizes)
        slot.response_ids = ()
        self._free.put(slot)

    def _fail(self, slot: Slot, error: Exception) -> None:
        with self._failures_lock:
            failures = self.failures
            if not failures.requests:
                failures.first = f"{type(error).__name__}: {error}"
                failures.first_sample_indices = tuple(slot.indices)
            failures.requests += 1
            failures.samples += len(slot.response_ids)
            failures.is_fatal |= isinstance(error, RequestFailed) and error.is_fatal
        self._finish(slot, [0] * len(slot.response_ids))

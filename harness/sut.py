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
from harness.postprocess import PAYLOAD_FLOATS, Decoder
from harness.samples import SampleLibrary
from harness.wire import ResponseReader

Complete = Callable[[Sequence[int], int, int], None]
"""(response ids, address of the first payload, bytes per payload); 0 bytes for failed samples."""


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

    __slots__ = ("address", "indices", "on_answer", "payload", "response_ids", "uses")

    def __init__(self, batch: int, on_answer: Callable[["Slot", Any], None]) -> None:
        self.payload = np.empty((batch, PAYLOAD_FLOATS), np.float32)
        self.address = self.payload.ctypes.data
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
        self.slots = [Slot(batch, self._on_answer) for _ in range(in_flight)]
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
            self._decode(tensors, slot.payload)
        except Exception as error:  # noqa: BLE001 - boundary to gRPC, see above
            self._fail(slot, error)
        else:
            self._finish(slot, slot.payload.itemsize * PAYLOAD_FLOATS)

    def _finish(self, slot: Slot, payload_bytes: int) -> None:
        self._complete(slot.response_ids, slot.address, payload_bytes)
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
        self._finish(slot, 0)

"""Loaded samples, and the ready-made requests that carry them.

Rows are numbered in the order in which LoadGen had them loaded, so that neighbours in a query are neighbours
in memory, and a client-side batch is one range of rows.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.errors import ServerError
from harness.models.spec import Variant
from harness.run.worker.job import Job
from harness.triton.client import TritonClient
from harness.triton.http2 import Message
from harness.triton.messages import message_request_header, shared_memory_request
from harness.triton.shared_memory import Segment


class Samples(Protocol):
    """Preprocessed samples in the input's dtype: a `SampleFile`, or an array (n, *input.shape)."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]:
        """One of them."""


class CountedSamples:
    """Samples that count how many of them were read."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.read = 0

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]:
        self.read += 1
        return self._samples[index]


class Requests(Protocol):
    """Ready-made requests for loaded samples."""

    def request(self, first_row: int, batch: int) -> Message:
        """The request for rows `first_row` to `first_row + batch`."""


class SampleStore(Protocol):
    """Where the loaded samples are."""

    transport: str

    def fill(self, samples: Samples, indices: Sequence[int]) -> None:
        """Make `samples[indices]` the rows, from 0 on."""

    def close(self) -> None:
        """Let go of the memory; the store cannot be used again."""


class SharedMemoryRequests:
    """Requests that point into a segment which the servers have mapped."""

    def __init__(self, entry: str, variant: Variant, segment: str, rows: int, batch: int) -> None:
        """Make the requests for 1 and for `batch` of the segment's rows, once."""
        self._entry, self._variant, self._segment = entry, variant, segment
        self._ready = {
            (row, size): self._make(row, size) for size in {1, batch} for row in range(rows - size + 1)
        }

    def request(self, first_row: int, batch: int) -> Message:
        """The request for these rows, made beforehand but for odd batch sizes."""
        ready = self._ready.get((first_row, batch))
        if ready is None:
            ready = self._ready[first_row, batch] = self._make(first_row, batch)
        return ready

    def _make(self, row: int, batch: int) -> Message:
        variant = self._variant
        return shared_memory_request(
            self._entry, variant.input, variant.requested_outputs, self._segment, row, batch
        )


class SharedMemoryStore:
    """Samples in a segment that the servers have mapped; requests only point into it."""

    transport = "shm"

    def __init__(
        self, clients: Sequence[TritonClient], entry: str, variant: Variant, segment: Segment, batch: int
    ) -> None:
        """Take over a segment that is registered with each of the servers."""
        self._clients, self._segment = clients, segment
        rows = np.frombuffer(segment.buffer, variant.input.dtype.value)
        self._rows = rows.reshape(-1, *variant.input.shape)
        self.request = SharedMemoryRequests(entry, variant, segment.name, len(self._rows), batch).request

    def fill(self, samples: Samples, indices: Sequence[int]) -> None:
        """Copy the samples in; the servers see them at once."""
        for row, index in enumerate(indices):
            self._rows[row] = samples[index]

    def close(self) -> None:
        """Have the servers unmap the segment, then unmap it here."""
        for client in self._clients:
            client.unregister_shared_memory(self._segment.name)
        del self._rows
        self._segment.close()


class MessageStore:
    """Samples travel inside the requests: ready ones for single samples, joined ones for batches."""

    transport = "grpc"

    def __init__(self, entry: str, variant: Variant, batch: int) -> None:
        self._entry, self._variant, self._batch = entry, variant, batch
        self._rows: list[bytes] = []
        self._headers: dict[int, bytes] = {}

    def fill(self, samples: Samples, indices: Sequence[int]) -> None:
        """Serialise the samples, one copy of each in memory."""
        prefix = self._header(1) if self._batch == 1 else b""
        self._rows.clear()
        self._rows.extend(prefix + np.ascontiguousarray(samples[index]).tobytes() for index in indices)

    def request(self, first_row: int, batch: int) -> Message:
        """The request for these rows."""
        if self._batch == 1:
            return self._rows[first_row]
        return b"".join((self._header(batch), *self._rows[first_row : first_row + batch]))

    def close(self) -> None:
        """Drop the samples."""
        self._rows.clear()

    def _header(self, batch: int) -> bytes:
        if batch not in self._headers:
            variant = self._variant
            self._headers[batch] = message_request_header(
                self._entry, variant.input, variant.requested_outputs, batch
            )
        return self._headers[batch]


def open_store(
    job: Job, clients: Sequence[TritonClient], variant: Variant, rows: int
) -> SharedMemoryStore | MessageStore:
    """Choose where samples live: `shm`, `grpc`, or `auto` for shm where every server can map our memory.

    Args:
        job: whose requests it is for.
        clients: the servers that will be sent the requests.
        variant: the model's tensors.
        rows: most samples ever loaded at once.

    Raises:
        ServerError: no room in /dev/shm, or `shm` was asked for and a server cannot map it.
    """
    entry, name, batch = job.entry, job.segment, job.client_batch
    if job.transport == "grpc":
        return MessageStore(entry, variant, batch)
    segment = Segment(name, rows * variant.input.sample_bytes)
    with segment.named():
        refusing = [client for client in clients if not client.register_shared_memory(name, segment.size)]
    if not refusing:
        return SharedMemoryStore(clients, entry, variant, segment, batch)
    for client in clients:
        client.unregister_shared_memory(name)
    segment.close()
    if job.transport == "shm":
        raise ServerError(
            f"the server at {refusing[0].url} cannot map this machine's shared memory (other host or IPC "
            "namespace, or started without --allow-client-shm=true); use --transport grpc"
        )
    return MessageStore(entry, variant, batch)


class SampleLibrary:
    """LoadGen's QSL: which samples are loaded, and at which rows."""

    def __init__(self, samples: Samples, store: SampleStore) -> None:
        self.samples = samples
        self.store = store
        self._loaded: list[int] = []
        self._row_of: dict[int, int] = {}

    def load(self, indices: list[int]) -> None:
        """Load samples in this order; those that MultiStream repeats at the end become rows too."""
        self.store.fill(self.samples, indices)
        self._loaded = list(indices)
        self._row_of = {index: row for row, index in reversed(list(enumerate(indices)))}

    def first_run(self, indices: Sequence[int], start: int, limit: int) -> tuple[int, int]:
        """Row of `indices[start]`, and how many samples from there on (up to `limit`) follow it."""
        row = self._row_of[indices[start]]
        count = min(limit, len(indices) - start, len(self._loaded) - row)
        if indices[start : start + count] == self._loaded[row : row + count]:
            return row, count
        count = 1
        while indices[start + count] == self._loaded[row + count]:
            count += 1
        return row, count

"""Loaded samples, and the ready-made requests that carry them.

Rows are numbered in the order in which LoadGen had them loaded, so that neighbours in a query are neighbours
in memory, and a client-side batch is one range of rows.
"""

import contextlib
import logging
import mmap
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.errors import ServerError
from harness.models.spec import Variant
from harness.run.worker.job import Job
from harness.triton.client import TritonClient
from harness.triton.http2 import Message
from harness.triton.messages import (
    message_request_header,
    most_in_message,
    offset_bytes,
    shared_memory_request_header,
)
from harness.triton.shared_memory import Segment

logger = logging.getLogger(__name__)


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

    def fill(self, samples: Samples, indices: Sequence[int]) -> None:
        """Make `samples[indices]` the rows, from 0 on."""

    def close(self) -> None:
        """Let go of the memory; the store cannot be used again."""


class SharedMemoryRequests:
    """Requests that point into a segment which the servers have mapped."""

    def __init__(self, entry: str, variant: Variant, segment: str, batch: int) -> None:
        """Make the requests for up to `batch` samples, all but where these are."""
        self._sample_bytes = variant.input.sample_bytes
        self._headers = [
            shared_memory_request_header(entry, variant.input, variant.requested_outputs, segment, size)
            for size in range(1, batch + 1)
        ]

    def request(self, first_row: int, batch: int) -> Message:
        """The request for these rows."""
        return self._headers[batch - 1] + offset_bytes(first_row * self._sample_bytes)


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
        self.request = SharedMemoryRequests(entry, variant, segment.name, batch).request

    def fill(self, samples: Samples, indices: Sequence[int]) -> None:
        """Copy the samples in; the servers see them at once."""
        for row, index in enumerate(indices):
            self._rows[row] = samples[index]

    def close(self) -> None:
        """Have the servers unmap the segment, then unmap it here."""
        del self._rows
        _let_go(self._clients, self._segment)


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


class Stores:
    """Those of several servers, as one; some may have one together."""

    def __init__(self, stores: Iterable[SampleStore]) -> None:
        self._stores = list(dict.fromkeys(stores))

    def fill(self, samples: Samples, indices: Sequence[int]) -> None:
        """As a store's."""
        for store in self._stores:
            store.fill(samples, indices)

    def close(self) -> None:
        """As a store's."""
        for store in self._stores:
            store.close()


def open_stores(
    job: Job, clients: Sequence[TritonClient], variant: Variant, rows: int
) -> list[SharedMemoryStore | MessageStore]:
    """Choose where samples live: `shm`, `grpc`, or `auto`: shm for those that can map it, if it has room.

    Args:
        job: whose requests it is for.
        clients: the servers that will be sent the requests.
        variant: the model's tensors.
        rows: most samples ever loaded at once.

    Returns:
        The store of each server: one for all that map it, one for all that are sent messages.

    Raises:
        ServerError: `shm` was asked for, and /dev/shm has no room or a server cannot map it.
    """
    entry, name, batch = job.entry, job.segment, job.client_batch
    messages = MessageStore(entry, variant, batch)
    is_must = job.transport == "shm"
    # One page tells whether a server can map our memory at all; only then is there need of so much.
    near = [] if job.transport == "grpc" else [one for one in clients if _maps(one, name, is_must=is_must)]
    if not near:
        return [messages] * len(clients)
    try:
        segment = _mapped(near, name, rows * variant.input.sample_bytes)
    except ServerError as error:
        if is_must:
            raise
        logger.info("samples travel in messages: %s", error)
        return [messages] * len(clients)
    shared = SharedMemoryStore(near, entry, variant, segment, batch)
    return [shared if client in near else messages for client in clients]


def batch_that_fits(stores: Sequence[SampleStore], variant: Variant, batch: int) -> int:
    """As many samples as are wanted in a request, or as fit, where a store's travel in messages.

    That they do is mostly known before; not where they should lie in shared memory that has no room.
    """
    most = most_in_message(variant.input)
    if batch <= most or not any(isinstance(store, MessageStore) for store in stores):
        return batch
    logger.info("requests have up to %d samples instead of %d, since messages hold 2 GiB", most, batch)
    return most


def _maps(client: TritonClient, name: str, *, is_must: bool) -> bool:
    """Whether a server can map this machine's memory.

    Raises:
        ServerError: it must, and cannot.
    """
    try:
        _let_go([client], _mapped([client], name, mmap.PAGESIZE))
    except ServerError as error:
        if is_must:
            raise
        logger.info("samples travel in messages: %s", error)
        return False
    return True


def _mapped(clients: Sequence[TritonClient], name: str, size: int) -> Segment:
    """A new segment that every server has mapped.

    Raises:
        ServerError: there is no room for it, or a server cannot map it.
    """
    segment = Segment(name, size)
    with contextlib.ExitStack() as undo:
        undo.callback(_let_go, clients, segment)
        with segment.named():
            for client in clients:
                if refusal := client.refusal_of_shared_memory(name, size):
                    raise ServerError(
                        f"the server at {client.url} cannot map this machine's shared memory ({refusal}): it "
                        "is on another host, in another IPC namespace, or was started without "
                        "--allow-client-shm=true; use --transport grpc"
                    )
        undo.pop_all()
    return segment


def _let_go(clients: Sequence[TritonClient], segment: Segment) -> None:
    for client in clients:
        client.unregister_shared_memory(segment.name)
    segment.close()


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

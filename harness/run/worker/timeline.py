"""When each request was issued and answered: noted on the hot path, kept beside LoadGen's logs.

LoadGen stays the only clock that figures are quoted from; it keeps percentiles and no course of time. A test
compares the two. All of it, clocks and counters included, takes the client half a microsecond for each query,
of the thirty that a query to a null model takes it.
"""

import io
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import InferenceError
from harness.run.mlperf.rounds import Scenario

FILE_NAME = "timeline.npz"

_RECORD = struct.Struct("<QQI")
_FIELDS = np.dtype([("issued_ns", "<u8"), ("completed_ns", "<u8"), ("samples", "<u4")])
_CHUNK_RECORDS = 1 << 16


class Timeline:
    """Notes requests in the order in which they are completed; from one thread at a time."""

    def __init__(self) -> None:
        self._chunks: list[mmap.mmap] = []
        self._grow()

    def record(self, issued_ns: int, completed_ns: int, samples: int) -> None:
        """Note a request: when its query was issued, when it was answered (any one clock), its samples."""
        _RECORD.pack_into(self._chunk, self._end, issued_ns, completed_ns, samples)
        self._end += _RECORD.size
        if self._end == len(self._chunk):
            self._grow()

    def latencies_ns(self, start: int = 0) -> npt.NDArray[np.uint64]:
        """How long the requests took that were noted so far, from the `start`-th on; from any thread."""
        parts = []
        while start < (count := self._count()):
            chunk, first = divmod(start, _CHUNK_RECORDS)
            records = np.frombuffer(self._chunks[chunk], _FIELDS)[first : first + count - start]
            parts.append(records["completed_ns"] - records["issued_ns"])
            start += len(records)
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def _count(self) -> int:
        return (len(self._chunks) - 1) * _CHUNK_RECORDS + self._end // _RECORD.size

    def _grow(self) -> None:
        # The kernel clears a page when it is first written, so that growing costs microseconds; and nothing
        # that was written is ever copied.
        self._chunk = mmap.mmap(-1, _CHUNK_RECORDS * _RECORD.size)
        # First, so that another thread never counts a chunk that has nothing in it yet as full.
        self._end = 0
        self._chunks.append(self._chunk)

    def save(self, path: Path, count: int | None = None) -> None:
        """Write what `load` reads: `issued_us`, `completed_us`, `samples`.

        They are uint32; the times uint64 where the test took more than 2^32 us, which is 71 minutes.

        Args:
            path: the file.
            count: write the first so many requests, of a test that goes on; None for all.
        """
        count = self._count() if count is None else count
        records = np.concatenate([np.frombuffer(chunk, _FIELDS) for chunk in self._chunks])[:count]
        issued_ns, completed_ns = records["issued_ns"], records["completed_ns"]
        began_ns = issued_ns.min(initial=np.iinfo(np.uint64).max)
        issued_us, completed_us = (issued_ns - began_ns) // 1000, (completed_ns - began_ns) // 1000
        is_long = completed_us.max(initial=0) > np.iinfo(np.uint32).max
        kind = np.uint64 if is_long else np.uint32
        # In memory: where the disk is full, `zipfile` prints a traceback beside the error that it raises.
        content = io.BytesIO()
        np.savez_compressed(
            content,
            issued_us=issued_us.astype(kind),
            completed_us=completed_us.astype(kind),
            samples=records["samples"],
        )
        path.write_bytes(content.getvalue())


@dataclass(frozen=True)
class Recorded:
    """The requests of a test, failed ones included, in the order in which they were completed."""

    issued_us: npt.NDArray[Any]
    """When LoadGen issued the query that the request is (a part) of; the first one at 0."""
    completed_us: npt.NDArray[Any]
    samples: npt.NDArray[Any]
    """How many samples were in the request."""


def load(path: Path) -> Recorded:
    """Read a saved timeline.

    Raises:
        InferenceError: there is none, or it is damaged.
    """
    try:
        with np.load(path) as arrays:
            columns = arrays["issued_us"], arrays["completed_us"], arrays["samples"]
    except Exception as error:  # zip, zlib, numpy and Python's tokenizer each raise kinds of their own
        raise InferenceError(f"the timeline {path} cannot be read: {error}") from error
    issued, completed, samples = columns
    are_alike = issued.ndim == 1 and issued.shape == completed.shape == samples.shape
    if not are_alike or any(column.dtype.kind != "u" for column in columns) or (issued > completed).any():
        raise InferenceError(f"the timeline {path} cannot be read: it is not of requests and their answers")
    return Recorded(issued, completed, samples)


def query_latencies_us(
    recorded: Recorded, scenario: Scenario
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Latencies as LoadGen counts them in a scenario, and how many times each of them counts.

    MultiStream: of a query, until the last of its requests is answered. Offline: of a request, once for each
    of its samples. Others: of a query, which is one request.
    """
    latencies_us = recorded.completed_us.astype(np.int64) - recorded.issued_us.astype(np.int64)
    if scenario == Scenario.OFFLINE:
        return latencies_us, recorded.samples.astype(np.int64)
    if scenario == Scenario.MULTI_STREAM:
        # A query is issued after the one before it was answered: no two share a microsecond.
        order = np.argsort(recorded.issued_us, kind="stable")
        _, starts = np.unique(recorded.issued_us[order], return_index=True)
        latencies_us = np.maximum.reduceat(latencies_us[order], starts)
    return latencies_us, np.ones(len(latencies_us), np.int64)

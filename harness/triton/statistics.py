"""Triton's own account of a run: the difference of its cumulative statistics before and after."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerStatistics:
    """What the server did for one model between two readings. Times are totals over all requests."""

    requests: int
    failures: int
    samples: int
    executions: int
    """Batches that were executed."""
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    executions_by_batch_size: dict[int, int]
    executions_ns: int = 0
    """Time that instances spent on batches, each counted once, however many requests were in it."""
    cache_hits: int = 0
    """Requests that were answered from Triton's response cache, without being executed."""

    @property
    def compute_ns(self) -> int:
        """Of all requests, in their batches: input, inference and output."""
        return self.compute_input_ns + self.compute_infer_ns + self.compute_output_ns

    @property
    def mean_batch_size(self) -> float:
        """Samples per executed batch."""
        return self.samples / self.executions if self.executions else 0.0


def samples(reading: dict[str, Any]) -> int:
    """Samples that were inferred until a reading of `TritonClient.statistics`."""
    return _figure(reading, "inference_count")


def difference(before: dict[str, Any], after: dict[str, Any]) -> ServerStatistics:
    """What happened between two readings of `TritonClient.statistics`."""

    def grown(*path: str) -> int:
        return _figure(after, *path) - _figure(before, *path)

    earlier = _batches(before)
    batches = {size: count - earlier.get(size, 0) for size, count in _batches(after).items()}
    return ServerStatistics(
        requests=grown("inference_stats", "success", "count"),
        failures=grown("inference_stats", "fail", "count"),
        samples=samples(after) - samples(before),
        executions=grown("execution_count"),
        queue_ns=grown("inference_stats", "queue", "ns"),
        compute_input_ns=grown("inference_stats", "compute_input", "ns"),
        compute_infer_ns=grown("inference_stats", "compute_infer", "ns"),
        compute_output_ns=grown("inference_stats", "compute_output", "ns"),
        executions_by_batch_size={size: count for size, count in sorted(batches.items()) if count},
        executions_ns=_executions_ns(after) - _executions_ns(before),
        cache_hits=grown("inference_stats", "cache_hit", "count"),
    )


def total(parts: Iterable[ServerStatistics]) -> ServerStatistics:
    """What several servers did together."""
    result, *others = parts
    for part in others:
        sums = {
            field.name: getattr(result, field.name) + getattr(part, field.name)
            for field in dataclasses.fields(ServerStatistics)
            if field.type is int
        }
        batches = Counter(result.executions_by_batch_size) + Counter(part.executions_by_batch_size)
        result = ServerStatistics(**sums, executions_by_batch_size=dict(sorted(batches.items())))
    return result


def _figure(statistics: dict[str, Any], *path: str) -> int:
    """A counter; protobuf's JSON leaves zeros out and writes 64-bit numbers as text."""
    value: Any = statistics
    for key in path:
        value = value.get(key, {})
    return int(value or 0)


def _batches(statistics: dict[str, Any]) -> dict[int, int]:
    return {
        int(entry["batch_size"]): _figure(entry, "compute_infer", "count")
        for entry in statistics.get("batch_stats", [])
    }


def _executions_ns(statistics: dict[str, Any]) -> int:
    return sum(
        _figure(entry, part, "ns")
        for entry in statistics.get("batch_stats", [])
        for part in ("compute_input", "compute_infer", "compute_output")
    )

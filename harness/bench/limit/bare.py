"""The bare framework: `python -m harness.bench.limit.bare ENTRY_DIR SAMPLES THREADS SPIN`.

One process is one opened graph. Prints `{}` when it is open; then each line on stdin is an `Order`, and each
answer on stdout a `Timing`, or `{"error": …}` where the graph takes no such batch. Idle in between.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.bench.limit.frameworks import Array, Bind, Call, DoesNotFit, check, open_graph
from harness.data.sample_file import SampleFile
from harness.models import manifest
from harness.models.spec import Variant

_MAX_ROWS = 256
_MAX_BYTES = 256 << 20
"""Samples to go through."""
_MIN_CALLS = 3


@dataclass(frozen=True)
class Order:
    """What to measure."""

    batch: int
    calls: int
    """Of the graph, one after the other, that count as one query."""
    seconds: float


@dataclass(frozen=True)
class Timing:
    """What was measured."""

    samples: int
    seconds: float
    p50_ms: float
    """Of a query."""
    p90_ms: float
    p99_ms: float


def measure(bind: Bind, variant: Variant, rows: Array, order: Order) -> Timing:
    """Run the graph over and over, on one stretch of the samples after the other.

    Raises:
        DoesNotFit: the graph takes no such batch.
    """
    bound = [bind(batch) for batch in _batches(rows, order.batch)]
    check(bound[0], order.batch, variant)
    calls = _endless(bound)
    latencies: list[int] = []
    began = time.perf_counter_ns()
    deadline = began + int(order.seconds * 1e9)
    before = began
    while before < deadline or len(latencies) < _MIN_CALLS:
        for _ in range(order.calls):
            next(calls)()
        now = time.perf_counter_ns()
        latencies.append(now - before)
        before = now
    p50, p90, p99 = np.percentile(latencies, (50, 90, 99)) / 1e6
    samples = len(latencies) * order.calls * order.batch
    return Timing(samples, (before - began) / 1e9, float(p50), float(p90), float(p99))


def _batches(rows: Array, size: int) -> list[Array]:
    if len(rows) < size:
        rows = np.resize(rows, (size, *rows.shape[1:]))
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _endless(calls: list[Call]) -> Iterator[Call]:
    while True:
        yield from calls


def read_rows(path: Path) -> Array:
    """Read the first samples of a .npy file, as many as are worth going through."""
    samples = SampleFile(path)
    count = max(1, min(len(samples), _MAX_ROWS, _MAX_BYTES // samples[0].nbytes))
    rows: Array = np.stack([samples[index] for index in range(count)])
    samples.close()
    return rows


def main() -> None:
    """Open the graph, then measure what is asked for until stdin ends."""
    entry_dir, samples, threads, is_spinning = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Frameworks print to stdout, which is for answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    variant = manifest.load(Path(entry_dir)).variant
    file = Path(entry_dir) / "1" / variant.model_filename
    bind = open_graph(file, variant, threads=int(threads), is_spinning=is_spinning == "1")
    rows = read_rows(Path(samples))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = dataclasses.asdict(measure(bind, variant, rows, Order(**json.loads(line))))
        except DoesNotFit as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

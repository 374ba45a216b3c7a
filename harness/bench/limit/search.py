"""The limit: what the bare framework does on this machine with its best batch size, processes and threads."""

import dataclasses
import json
import logging
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.bench.limit.bare import Order, Timing
from harness.bench.limit.frameworks import SPINS
from harness.errors import InferenceError
from harness.machine.processes import start_module
from harness.models.platforms import Platform
from harness.models.spec import Variant

logger = logging.getLogger(__name__)

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_QUICK_BATCHES = (1, 8, 32)
_FINALISTS = 3
"""Of a first, short look at every setup, those that a second, longer one decides between."""


@dataclass(frozen=True)
class Setup:
    """How the framework is given the machine."""

    processes: int
    threads: int
    """Of each process."""
    is_spinning: bool

    def __str__(self) -> str:
        """As it is reported, e.g. `2 x 1 threads`."""
        return f"{self.processes} x {self.threads} threads{' that spin' if self.is_spinning else ''}"


@dataclass(frozen=True)
class Best:
    """The fastest of all that was tried, for many samples and for one."""

    throughput: Setup
    batch: int
    samples_per_s: float
    latency: Setup
    """One process; of the lowest median of a batch of 1."""
    latency_ms: float


def setups(cpus: int, platform: Platform) -> list[Setup]:
    """Every even split of the CPUs; with threads that spin as well, where the framework knows that."""
    found = []
    for processes in range(1, cpus + 1):
        if cpus % processes:
            continue
        threads = cpus // processes
        spins = (False, True) if platform in SPINS and threads > 1 else (False,)
        found += [Setup(processes, threads, is_spinning) for is_spinning in spins]
    return found


class _Worker:
    """One `harness.bench.limit.bare` process."""

    def __init__(self, entry_dir: Path, samples: Path, setup: Setup) -> None:
        self._process = start_module(
            "harness.bench.limit.bare",
            *(str(entry_dir), str(samples), str(setup.threads), str(int(setup.is_spinning))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            environment={"TF_CPP_MIN_LOG_LEVEL": "2"},
        )

    def send(self, order: Order) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(order)) + "\n")
        self._process.stdin.flush()

    def read(self) -> dict[str, float | str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise InferenceError("the bare framework's process died; its last words are above")
        return dict(json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class _Group:
    """The processes of one setup."""

    def __init__(self, entry_dir: Path, samples: Path, setup: Setup) -> None:
        self.setup = setup
        self._workers = [_Worker(entry_dir, samples, setup) for _ in range(setup.processes)]
        try:
            for worker in self._workers:
                worker.read()
        except BaseException:
            self.close()
            raise

    def measure(self, order: Order, processes: int | None = None) -> list[Timing] | None:
        """Timings of each process, all at work at the same time; None where the graph takes no such batch."""
        workers = self._workers[:processes]
        for worker in workers:
            worker.send(order)
        answers = [worker.read() for worker in workers]
        if any("error" in answer for answer in answers):
            return None
        return [Timing(**answer) for answer in answers]  # type: ignore[arg-type]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class Limit:
    """A graph and the best way to run it; processes wait between measurements, and take no CPU."""

    def __init__(
        self,
        entry_dir: Path,
        samples: Path,
        variant: Variant,
        *,
        cpus: int,
        look_s: float,
        is_quick: bool = False,
    ) -> None:
        """Try every setup and batch size, and keep the best running.

        Args:
            entry_dir: an exported entry of the model repository.
            samples: its preprocessed samples, a .npy file.
            variant: the model.
            cpus: to be used.
            look_s: for how long each setup and batch size is tried at first; the best of them twice as long.
            is_quick: try fewer batch sizes.

        Raises:
            InferenceError: the framework cannot run the graph.
        """
        self._entry_dir, self._samples = entry_dir, samples
        self._look_s = look_s
        self._batch_limit = variant.batch_limit
        self._groups: dict[Setup, _Group] = {}
        sizes = [size for size in (_QUICK_BATCHES if is_quick else _BATCHES) if size <= variant.batch_limit]
        try:
            self.best = self._search(setups(cpus, variant.platform), sizes)
        except BaseException:
            self.close()
            raise
        self._keep({self.best.throughput, self.best.latency})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        self._keep(())

    def throughput(self, seconds: float) -> float:
        """Samples per second of the best setup and batch size."""
        timings = self._group(self.best.throughput).measure(Order(self.best.batch, 1, seconds))
        return _rate(timings)

    def query(self, samples: int, seconds: float) -> Timing:
        """Latencies of queries of `samples` samples, one after the other, each in one batch if that fits."""
        is_one_batch = samples <= self._batch_limit
        order = Order(samples, 1, seconds) if is_one_batch else Order(1, samples, seconds)
        timings = self._group(self.best.latency).measure(order, processes=1)
        if not timings:
            order = Order(1, samples, seconds)
            timings = self._group(self.best.latency).measure(order, processes=1)
        assert timings, "a batch of 1 was measured before"
        return timings[0]

    def _search(self, candidates: Sequence[Setup], sizes: Sequence[int]) -> Best:
        rates: dict[tuple[Setup, int], float] = {}
        latencies: dict[Setup, float] = {}
        for setup in candidates:
            group = self._group(setup)
            for size in sizes:
                timings = group.measure(Order(size, 1, self._look_s))
                rates[setup, size] = _rate(timings)
                if size == 1 and setup.processes > 1:
                    timings = group.measure(Order(size, 1, self._look_s), processes=1)
                if size == 1 and timings:
                    latencies[setup] = timings[0].p50_ms
                logger.info("bare: %s, batch %d: %.1f samples/s", setup, size, rates[setup, size])
            # A machine with many cores has many setups, each process with its own copy of model and samples.
            self._keep(())
            if not latencies:
                raise InferenceError(f"the bare framework cannot run {self._entry_dir}")
        finalists = sorted(rates, key=rates.__getitem__, reverse=True)[:_FINALISTS]
        again = {
            (setup, size): _rate(self._group(setup).measure(Order(size, 1, 2 * self._look_s)))
            for setup, size in finalists
        }
        setup, size = max(again, key=again.__getitem__)
        soonest = min(latencies, key=latencies.__getitem__)
        return Best(setup, size, again[setup, size], soonest, latencies[soonest])

    def _group(self, setup: Setup) -> _Group:
        if setup not in self._groups:
            self._groups[setup] = _Group(self._entry_dir, self._samples, setup)
        return self._groups[setup]

    def _keep(self, wanted: Iterable[Setup]) -> None:
        for setup in set(self._groups) - set(wanted):
            self._groups.pop(setup).close()


def _rate(timings: Sequence[Timing] | None) -> float:
    return sum(timing.samples / timing.seconds for timing in timings or ())

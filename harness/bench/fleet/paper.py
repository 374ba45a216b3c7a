"""What asking costs, measured, and what that comes to where one machine is not enough."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.bench.fleet.curve import IN_FLIGHT, Fleet, Measured
from harness.bench.null import entry
from harness.run.config import run_config
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared

SIDE_PX = 224
_IMAGES_PER_S = 50_000
_BATCHES = (1, 2, 4, 8)
_WINDOW_S = 500e-6
"""For how long a client could collect samples for one request."""
_TRANSPORTS = ("shm", "grpc")
_BYTES_OF = {"float32": 4, "float16": 2, "uint8": 1}


@dataclass(frozen=True)
class Cost:
    """CPU time of one sample, in us: the medians of all rounds."""

    name: str
    client_us: float
    servers_us: float | None


@dataclass(frozen=True)
class Costs:
    """Of one server, asked by one process."""

    by_batch: tuple[Cost, ...]
    """Of the smallest samples, by `_BATCHES`."""
    images: tuple[Cost, ...]
    """Of 224x224 float32, by `_TRANSPORTS`."""


def measure(fleet: Fleet, rounds: int, seconds: float) -> Costs:
    """Measure them, in turns.

    Raises:
        HarnessError: a run failed.
    """
    repository = fleet.infos[0].repository
    tiny = entry.write_entry(
        repository,
        "null_batches",
        side_px=1,
        in_flight=IN_FLIGHT,
        transport=run_config.AUTO,
        has_batches=True,
    )
    images = [
        entry.write_entry(
            repository,
            f"null_{SIDE_PX}_{transport}",
            side_px=SIDE_PX,
            in_flight=IN_FLIGHT,
            transport=transport,
        )
        for transport in _TRANSPORTS
    ]
    by_batch = _measured(fleet, [(tiny, batch) for batch in _BATCHES], rounds, seconds)
    by_transport = _measured(fleet, [(image, 1) for image in images], rounds, seconds)
    return Costs(
        tuple(_cost(f"{n} in a request", runs) for n, runs in zip(_BATCHES, by_batch, strict=True)),
        tuple(_cost(name, runs) for name, runs in zip(_TRANSPORTS, by_transport, strict=True)),
    )


def _measured(
    fleet: Fleet, asked: Sequence[tuple[Prepared, int]], rounds: int, seconds: float
) -> list[list[Measured]]:
    """Each entry in requests of so many samples, in turns; as many samples are under way in each."""
    tuning = entry.tuning(IN_FLIGHT)
    sessions = {ready.manifest.entry: fleet.session(ready, 1, ready.manifest.entry) for ready, _ in asked}
    for session in sessions.values():
        session.load(tuning, is_override=False)
    found: list[list[Measured]] = [[] for _ in asked]
    try:
        for _ in range(rounds):
            for (ready, batch), runs in zip(asked, found, strict=True):
                wanted = dataclasses.replace(tuning, client_batch=batch, in_flight=IN_FLIGHT // batch)
                runs.append(fleet.run(sessions[ready.manifest.entry], Scenario.OFFLINE, wanted, seconds))
    finally:
        for session in sessions.values():
            session.close()
    return found


def _cost(name: str, runs: Sequence[Measured]) -> Cost:
    servers = [us for run in runs if (us := run.servers_us_per_sample) is not None]
    return Cost(
        name,
        statistics.median(run.ours.client_us_per_sample for run in runs),
        statistics.median(servers) if servers else None,
    )


def lines(costs: Costs) -> list[str]:
    """What they come to."""
    return [_of_process(costs), *_of_images(costs), *_of_batches(costs), _of_network()]


def _of_process(costs: Costs) -> str:
    smallest, (near, far) = costs.by_batch[0], costs.images
    return (
        f"a client process, which is one core, carries up to {1e6 / smallest.client_us:,.0f} of the smallest "
        f"queries/s ({smallest.client_us:.0f} us of CPU each), {1e6 / near.client_us:,.0f} images/s of "
        f"{SIDE_PX}x{SIDE_PX} float32 in shared memory ({near.client_us:.0f} us), "
        f"{1e6 / far.client_us:,.0f} in messages ({far.client_us:.0f} us)"
    )


def _of_images(costs: Costs) -> list[str]:
    found = []
    for cost, where in zip(costs.images, ("in shared memory", "in messages"), strict=True):
        line = (
            f"{_IMAGES_PER_S:,} images/s {where}: {_IMAGES_PER_S * cost.client_us / 1e6:.1f} cores of clients"
        )
        if cost.servers_us is not None:
            line += (
                f", and {_IMAGES_PER_S * cost.servers_us / 1e6:.1f} of Triton and its stub before any model "
                f"has calculated ({cost.servers_us:.0f} us each)"
            )
        found.append(line)
    return found


def per_request_us(by_batch: Sequence[Cost]) -> float:
    """What a request costs the client, however many samples it has: by one of a sample and one of the most.

    Of n samples each costs `sample + request / n`.
    """
    one, most = by_batch[0], by_batch[-1]
    return (one.client_us - most.client_us) / (1 - 1 / _BATCHES[-1])


def most_with_window(request_us: float, sample_us: float) -> float:
    """Queries per second that a process carries which collects them for `_WINDOW_S`.

    A window has the query that opens it and those that come meanwhile, 1 + rate * window; so the rate at
    which all of a core is used, rate * (sample + request / (1 + rate * window)) = 1 s, is a square's root.
    """
    square = sample_us * _WINDOW_S
    half = (request_us + sample_us - 1e6 * _WINDOW_S) / 2
    return (math.sqrt(half * half + square * 1e6) - half) / square


def _of_batches(costs: Costs) -> list[str]:
    one_us, request_us = costs.by_batch[0].client_us, per_request_us(costs.by_batch)
    sample_us = max(1e-3, one_us - request_us)
    measured = ", ".join(
        f"{n}: {cost.client_us:.0f}" + (f" ({cost.servers_us:.0f})" if cost.servers_us is not None else "")
        for n, cost in zip(_BATCHES, costs.by_batch, strict=True)
    )
    return [
        f"us of client CPU (and of the server's) a sample, by samples in a request: {measured}; of the "
        f"client's, {request_us:.0f} are a request's and {sample_us:.0f} a sample's",
        f"collecting queries in the client for {_WINDOW_S * 1e6:.0f} us: a process carries "
        f"{1e6 / one_us:,.0f} queries/s as they come, and {most_with_window(request_us, sample_us):,.0f} so, "
        f"calculated; below the first it only makes answers later, by up to {_WINDOW_S * 1e3:g} ms",
    ]


def _of_network() -> str:
    sizes = ", ".join(
        f"{name} {_IMAGES_PER_S * SIDE_PX * SIDE_PX * 3 * size * 8 / 1e9:.0f}"
        for name, size in _BYTES_OF.items()
    )
    return f"{_IMAGES_PER_S:,} images/s of {SIDE_PX}x{SIDE_PX}x3 are so many Gbit/s on the wire: {sizes}"

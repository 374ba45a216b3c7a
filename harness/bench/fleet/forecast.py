"""Server's latency on several servers, calculated: `python -m harness.bench.fleet.forecast --help`.

Queries arrive as LoadGen lets them; each goes to the server with the fewest under way, at a tie in turns, as
`harness.run.worker.sut` has it; a server answers one after the other, in the order of arrival, each after the
same time: M/D/1 with one server, and nearly M/D/c with c, whose queries would wait in one line. What a query
takes beyond that, in client, kernel and Triton, is added to each.
"""

import argparse
import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.machine import command
from harness.machine.command import OneLineParser
from harness.run.config.values import number
from harness.run.mlperf.rounds import LATEST_ROUND, ROUNDS

Times = npt.NDArray[np.float64]

_PERCENTILES = (50, 90, 99)
_SECONDS = 600.0
_BITS = 32
_STEPS = 12
"""Of the search for a rate: each halves what is left."""


@dataclass(frozen=True)
class Forecast:
    """Of one load."""

    servers: int
    rate: float
    """Queries per second, of all servers."""
    busy: float
    """Share of their time in which the servers calculate; queues grow without end from 1 on."""
    p50_ms: float
    p90_ms: float
    p99_ms: float


def arrivals(rate: float, seconds: float, seed: int) -> Times:
    """When LoadGen issues Server's queries, in seconds from the first one on: the same for a round's seed.

    Its intervals are exponential, drawn by C++'s std::mt19937 in steps of 53 bits (mlcommons/inference,
    loadgen/loadgen.cc, GenerateQueries; libstdc++'s generate_canonical takes two numbers of 32 bits).
    """
    # numpy's old generator, since that is the one that is seeded as C++'s.
    chance = np.random.RandomState(seed % (1 << _BITS))
    count = int(rate * seconds + 6 * math.sqrt(rate * seconds)) + 1
    draws = chance.randint(0, 1 << _BITS, size=(count, 2), dtype=np.uint32).astype(np.float64)
    shares = (draws[:, 0] + draws[:, 1] * 2.0**_BITS) / 2.0 ** (2 * _BITS)
    times = np.concatenate(([0.0], np.cumsum(-np.log1p(-shares) / rate)))
    return times[times < seconds]


def latencies(arrivals_s: Times, servers: int, service_s: float, overhead_s: float = 0.0) -> Times:
    """Seconds from each query's arrival to its answer.

    Args:
        arrivals_s: in the order of time.
        servers: how many; each answers one query at a time.
        service_s: how long that takes.
        overhead_s: what is added to each query.
    """
    # When what each server has under way will be answered; the server that was asked longest ago first.
    under_way = [deque[float]() for _ in range(servers)]
    found = np.empty(len(arrivals_s))
    for at, arrival_s in enumerate(arrivals_s.tolist()):
        for queue in under_way:
            while queue and queue[0] <= arrival_s:
                queue.popleft()
        chosen = min(under_way, key=len)
        under_way.remove(chosen)
        under_way.append(chosen)
        answered_s = max(arrival_s, chosen[-1] if chosen else 0.0) + service_s
        chosen.append(answered_s)
        found[at] = answered_s - arrival_s + overhead_s
    return found


def forecast(
    servers: int, rate: float, service_s: float, overhead_s: float, *, seconds: float = _SECONDS, seed: int
) -> Forecast:
    """Of a test of so many seconds with a round's seed."""
    all_s = latencies(arrivals(rate, seconds, seed), servers, service_s, overhead_s)
    # As LoadGen has them: of those in order, no mean of two.
    percentiles = np.percentile(all_s, _PERCENTILES, method="higher") * 1e3
    return Forecast(servers, rate, rate * service_s / servers, *map(float, percentiles))


def highest_rate(
    servers: int, bound_s: float, service_s: float, overhead_s: float, *, seconds: float, seed: int
) -> Forecast | None:
    """The highest rate whose p99 keeps a bound; None where not even one query a second does."""
    low, high = 1.0, servers / service_s
    best = None
    for _ in range(_STEPS):
        rate = (low + high) / 2
        found = forecast(servers, rate, service_s, overhead_s, seconds=seconds, seed=seed)
        if found.p99_ms <= bound_s * 1e3:
            best, low = found, rate
        else:
            high = rate
    return best


def round_seed() -> int:
    """Of the arrivals, in the latest round."""
    return ROUNDS[LATEST_ROUND].schedule_seed


def _parser() -> argparse.ArgumentParser:
    result = OneLineParser(
        prog="python -m harness.bench.fleet.forecast",
        description="Calculate Server's latency on several servers from what one was measured to take: with "
        "--rate at that rate, with --bound-ms the highest rate whose p99 keeps the bound.",
        allow_abbrev=False,
    )
    result.add_argument("--servers", metavar="N", required=True, help="instances of the model on all servers")
    result.add_argument(
        "--service-ms",
        metavar="MS",
        required=True,
        help="how long one of them is occupied by a query: 1000 / samples per second of Offline on it",
    )
    result.add_argument(
        "--overhead-ms",
        metavar="MS",
        help="what a query takes beyond that: SingleStream's p50 less --service-ms (default 0)",
    )
    result.add_argument("--rate", metavar="QPS", help="queries per second, of all servers")
    result.add_argument("--bound-ms", metavar="MS", help="that 99%% of the queries must keep")
    result.add_argument("--time", metavar="SECONDS", help=f"of the test (default {_SECONDS:g})")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body() -> None:
        given = vars(_parser().parse_args(arguments))
        servers = number("servers", given["servers"], int, 1000)
        service_s = number("service-ms", given["service_ms"], float) / 1e3
        overhead_s = 0.0
        if given["overhead_ms"] is not None:
            overhead_s = number("overhead-ms", given["overhead_ms"], float) / 1e3
        seconds = number("time", given["time"] or _SECONDS, float, 3600)
        if (given["rate"] is None) == (given["bound_ms"] is None):
            raise ConfigError("--rate or --bound-ms: give one of them")
        seed = round_seed()
        found: Forecast | None
        if given["rate"] is not None:
            rate = number("rate", given["rate"], float, 1_000_000)
            found = forecast(servers, rate, service_s, overhead_s, seconds=seconds, seed=seed)
        else:
            bound_s = number("bound-ms", given["bound_ms"], float) / 1e3
            found = highest_rate(servers, bound_s, service_s, overhead_s, seconds=seconds, seed=seed)
        if found is None:
            raise ConfigError(f"--bound-ms {given['bound_ms']}: no rate keeps it, however low")
        sys.stdout.write(
            f"{found.servers} servers at {found.rate:.1f} queries/s, {found.busy:.1%} busy: p50 "
            f"{found.p50_ms:.2f}, p90 {found.p90_ms:.2f}, p99 {found.p99_ms:.2f} ms\n"
        )

    return command.run(body)


if __name__ == "__main__":
    sys.exit(main())

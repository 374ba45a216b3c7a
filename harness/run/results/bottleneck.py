"""What holds a run back: the client, the server, or what is between them. A pure function of its evidence.

Three shares, of which the largest names the culprit. Server: the part of a request's life that it spends in
Triton's queue and in the model. Client: the client's CPU time, as a part of a lone request's life, or of one
core while several are in flight: one Python process cannot use more. Transport: the rest, in which the client
sleeps and Triton knows of no request: gRPC on both sides, the kernel, and waiting for a core.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.run.mlperf.figures import counted
from harness.run.mlperf.rounds import Scenario
from harness.triton.statistics import ServerStatistics

_SATURATED = 0.9
"""Above, a share of one core, or of the instances' time, is all of it for practical purposes."""


class Bound(StrEnum):
    """What holds a run back."""

    CLIENT = "client-bound"
    SERVER = "server-bound"
    TRANSPORT = "transport-bound"


@dataclass(frozen=True)
class Evidence:
    """What was seen of one run; times are means per request."""

    request_us: float
    """From being sent to being answered."""
    requests_per_s: float
    in_flight_limit: int
    client_us: float
    """CPU time of the client."""
    client_cores: float
    """CPU time of the client per second of the run."""
    client_processes: int
    queue_us: float
    compute_us: float
    """Of the batch that the request was in, with its input and output."""
    instances_busy: float
    """Share of the time in which the model's instances executed a batch."""
    mean_batch_size: float
    executions_by_batch_size: Mapping[int, int]

    @property
    def in_flight(self) -> float:
        """Mean number of requests under way, by Little's law."""
        return self.requests_per_s * self.request_us / 1e6

    @property
    def in_server(self) -> float:
        """Mean number of requests in Triton's queue or in the model."""
        return self.requests_per_s * (self.queue_us + self.compute_us) / 1e6


@dataclass(frozen=True)
class Bottleneck:
    """The culprit, and why."""

    bound: Bound
    server_share: float
    client_share: float
    transport_share: float
    reasons: tuple[str, ...]
    """The evidence, a line each."""


@dataclass(frozen=True)
class Load:
    """How a run was driven; of all servers together."""

    in_flight: int
    """Most requests under way."""
    instances: int
    """Of the model; 0, left to the server, counts as one."""
    client_processes: int


def evidence_of(
    statistics: ServerStatistics,
    scenario: Scenario,
    load: Load,
    *,
    samples_per_s: float,
    mean_latency_ns: float,
    client_cpu_s: float,
    test_s: float,
) -> Evidence | None:
    """Put a run's evidence together.

    Args:
        statistics: of all servers, over the test.
        scenario: LoadGen's.
        load: how it was driven.
        samples_per_s: LoadGen's.
        mean_latency_ns: LoadGen's, of queries.
        client_cpu_s: CPU time of all client processes.
        test_s: wall time of the test.

    Returns:
        None where the server counted nothing, or LoadGen measured nothing.
    """
    counted = statistics.requests, statistics.samples, load.in_flight, load.client_processes
    if min(*counted, samples_per_s, mean_latency_ns, test_s) <= 0:
        return None
    seconds = statistics.samples / samples_per_s
    requests_per_s = statistics.requests / seconds
    request_us = mean_latency_ns / 1e3
    if scenario in (Scenario.OFFLINE, Scenario.MULTI_STREAM):
        # Of these, LoadGen's latency is that of many requests; but as many as may be are always under way.
        request_us = load.in_flight / requests_per_s * 1e6
    instances = max(1, load.instances)
    return Evidence(
        request_us=request_us,
        requests_per_s=requests_per_s,
        in_flight_limit=load.in_flight,
        client_us=client_cpu_s / statistics.requests * 1e6,
        client_cores=client_cpu_s / test_s,
        client_processes=load.client_processes,
        queue_us=statistics.queue_ns / statistics.requests / 1e3,
        compute_us=statistics.compute_ns / statistics.requests / 1e3,
        instances_busy=min(1.0, statistics.executions_ns / instances / seconds / 1e9),
        mean_batch_size=statistics.mean_batch_size,
        executions_by_batch_size=statistics.executions_by_batch_size,
    )


def find(evidence: Evidence) -> Bottleneck:
    """Decide what holds a run back."""
    server = min(1.0, (evidence.queue_us + evidence.compute_us) / evidence.request_us)
    # With several requests in flight, the client's work on one overlaps the waiting of the others.
    overlap = max(1.0, evidence.in_flight)
    client = min(1.0, overlap * evidence.client_us / evidence.request_us / evidence.client_processes)
    transport = max(0.0, 1.0 - server - client)
    shares = {Bound.SERVER: server, Bound.CLIENT: client, Bound.TRANSPORT: transport}
    saturated = {Bound.SERVER: evidence.instances_busy, Bound.CLIENT: client}
    culprit = max(saturated, key=saturated.__getitem__)
    if saturated[culprit] < _SATURATED:
        culprit = max(shares, key=shares.__getitem__)
    return Bottleneck(culprit, server, client, transport, _reasons(evidence))


def _reasons(evidence: Evidence) -> tuple[str, ...]:
    commonest = sorted(evidence.executions_by_batch_size.items(), key=lambda item: -item[1])
    sizes = ", ".join(f"{size} ({counted(count, 'time')})" for size, count in commonest[:3])
    others = f" and {counted(len(commonest) - 3, 'other size')}" if len(commonest) > 3 else ""
    rest_us = max(0.0, evidence.request_us - evidence.queue_us - evidence.compute_us)
    return (
        f"client: CPU {evidence.client_cores:.0%} of a core, {_ms(evidence.client_us)} ms a request",
        f"requests in flight: {evidence.in_flight:.1f} of up to {evidence.in_flight_limit}, of these in the "
        f"server {evidence.in_server:.1f}",
        f"a request: {_ms(evidence.request_us)} ms = {_ms(evidence.queue_us)} in Triton's queue + "
        f"{_ms(evidence.compute_us)} in its batch + {_ms(rest_us)} in client and transport",
        f"server: instances busy {evidence.instances_busy:.0%}; mean batch {evidence.mean_batch_size:.1f}, "
        f"of {sizes}{others}",
    )


def _ms(us: float) -> str:
    """With three digits that mean something; whole where it has more."""
    ms = us / 1e3
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"

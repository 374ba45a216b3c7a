"""How a model is served in each scenario: instances, threads, batches and requests in flight.

Measured on two cores (see the README): one instance with all threads answers a single query soonest; one
instance per core, with one thread each, gives the most samples per second to many queries.
"""

from dataclasses import dataclass

from harness.model_config import ServerSettings
from harness.models.spec import Variant
from harness.rounds import Scenario
from harness.wire import sample_bytes

_MAX_INSTANCES = 8
"""Every instance of a Python-based backend is a process with its own copy of the model."""
_OFFLINE_BATCH = 32
_MAX_REQUEST_BYTES = 32 << 20
"""Images of 1200x1200 (17 MB) fill the cores by themselves: joined, they only take memory."""
_MIN_OFFLINE_IN_FLIGHT = 4
"""Enough to hide the client's turn-around where the instances are not ours to count."""
_SERVER_IN_FLIGHT = 2048
_SERVER_BYTES_IN_FLIGHT = 2 << 30
"""Arrivals do not wait for earlier answers; these are only bounds on memory when a server falls behind."""


@dataclass(frozen=True)
class Tuning:
    """Settings of both sides for one scenario."""

    server: ServerSettings
    client_batch: int
    """Most samples in one request; the rest of the batching is Triton's."""
    in_flight: int
    """Most requests under way."""


def tune(
    variant: Variant,
    scenario: Scenario,
    *,
    threads: int,
    samples_per_query: int,
    max_batchsize: int | None,
    device: str,
) -> Tuning:
    """Choose the settings of one scenario.

    Args:
        variant: the model.
        scenario: how it is queried.
        threads: CPU threads that the server may use, 0 where they are not ours to count (GPU, remote).
        samples_per_query: of MultiStream.
        max_batchsize: the user's limit, if any.
        device: auto, cpu or gpu.
    """
    limit = min(max_batchsize or variant.batch_limit, variant.batch_limit)
    by_size = max(1, _MAX_REQUEST_BYTES // sample_bytes(variant.input))
    is_throughput = scenario == Scenario.OFFLINE
    instances = max(1, min(threads, _MAX_INSTANCES)) if is_throughput else 1
    batch = {
        Scenario.SINGLE_STREAM: 1,
        Scenario.MULTI_STREAM: min(samples_per_query, limit, by_size),
        Scenario.SERVER: 1,
        Scenario.OFFLINE: min(max_batchsize or min(_OFFLINE_BATCH, by_size), limit),
    }[scenario]
    in_flight = {
        Scenario.SINGLE_STREAM: 1,
        Scenario.MULTI_STREAM: -(-samples_per_query // batch),
        Scenario.SERVER: min(_SERVER_IN_FLIGHT, _SERVER_BYTES_IN_FLIGHT // sample_bytes(variant.input)),
        # Every instance runs one full batch while the next one waits for it.
        Scenario.OFFLINE: max(2 * instances, _MIN_OFFLINE_IN_FLIGHT),
    }[scenario]
    settings = ServerSettings(
        instances=instances,
        threads=threads // instances,
        max_batch_size=limit,
        device=device,
    )
    return Tuning(settings, batch, in_flight)

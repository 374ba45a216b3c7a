"""How a model is served in each scenario: instances, threads, batches and requests in flight.

The choice is what was measured to be best: of the very server by its user, with `./run.sh tune`, or
else of a CPU with as many cores in the project's own table. A choice that was clearly better than the rule's
is carried to up to twice the cores. Else the rule holds: one instance with all threads answers a single
sample soonest; one instance per core, with one thread each, gives the most samples per second of many, and
with that, under load, the shortest queues.

For GPUs the rule is what NVIDIA set its own Triton to in MLPerf's rounds v1.1 to v3.0. It was not measured by
this project, and is called so wherever a choice tells its origin.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.models.model_config import RUN_BATCH, ServerSettings
from harness.models.spec import LARGEST_BATCH, ModelSpec, Variant
from harness.run.config.measured import table
from harness.run.config.measured.fingerprint import Fingerprint
from harness.run.config.measured.table import Choice, Measured
from harness.run.mlperf.rounds import Scenario

SERVERS_OWN = "the server's configuration"
GPU_RULE = "rule for GPUs, not measured"
"""Origins."""

_MAX_INSTANCES = 8
"""Every instance of a Python-based backend is a process with its own copy of the model."""
_OFFLINE_BATCH = 32
_RUN_BATCH = 4
"""Offline: samples of a request that an instance with one thread calculates at once: what they need fits into
a core's caches. Nowhere slower than all at once, and up to a fifth faster (the shipped table)."""
_SERVER_JOINED = 2
"""Server: samples that an instance with a core of its own runs at once. Of 1, 2 and all that wait it was the
best or near it wherever it was measured (the shipped table): all that wait make the next ones wait long."""
_MAX_REQUEST_BYTES = 32 << 20
"""Images of 1200x1200 (17 MB) fill the cores by themselves: joined, they only take memory."""
_MAX_GPU_REQUEST_BYTES = 256 << 20
"""Of a GPU's requests, which are larger and of which few are under way."""
_GPU_QUEUE_DELAY_US = 1000
"""Server: as long as NVIDIA's 8 A100 on PCIe were given to gather batches of up to 64, and reached 0.975 of
the rate without Triton; one instance on each GPU."""
_MIN_OFFLINE_IN_FLIGHT = 4
"""Enough to hide the client's turn-around where the instances are not ours to count."""
_SERVER_IN_FLIGHT = 2048
_SERVER_BYTES_IN_FLIGHT = 2 << 30
"""Arrivals do not wait for earlier answers; these are only bounds on memory when a server falls behind."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks for, whatever would be chosen; None or empty where nothing."""

    device: str = "auto"
    max_batchsize: int | None = None
    instances: int | None = None
    """On each device."""
    gpus: tuple[int, ...] = ()
    queue_delay_us: int | None = None
    preferred_batch: tuple[int, ...] = ()

    def over(self, choice: Choice) -> Choice:
        """A choice but for what is asked for."""
        delay = choice.max_queue_delay_us if self.queue_delay_us is None else self.queue_delay_us
        instances = self.instances or choice.instances
        return dataclasses.replace(choice, instances=instances, max_queue_delay_us=delay)


@dataclass(frozen=True)
class Tuning:
    """Settings of both sides for one scenario."""

    server: ServerSettings
    client_batch: int
    """Most samples in one request; in Server the batching is Triton's."""
    in_flight: int
    """Most requests under way."""
    origin: str = "rule"
    """Where the choice comes from."""
    server_origin: str = ""
    """Where the server's settings come from, if it is from elsewhere."""


def as_served(
    wish: Tuning,
    live: Sequence[ServerSettings],
    scenario: Scenario,
    *,
    samples_per_query: int,
    server_origin: str,
    in_flight: int | None = None,
) -> Tuning:
    """The settings that hold, once the servers are known.

    Args:
        wish: what was chosen before.
        live: of each server, as it serves the model; the first one's are told.
        scenario: how the model is queried.
        samples_per_query: of MultiStream.
        server_origin: where the servers' settings come from, if they are not what was chosen.
        in_flight: what the user asked for, if anything.
    """
    batch = min(wish.client_batch, *(max(1, one.max_batch_size) for one in live))
    derived = {
        Scenario.MULTI_STREAM: -(-samples_per_query // batch),
        Scenario.OFFLINE: max(_offline_in_flight(one, 1, batch) for one in live),
    }
    return dataclasses.replace(
        wish,
        server=dataclasses.replace(live[0], precision=wish.server.precision),
        client_batch=batch,
        in_flight=in_flight or derived.get(scenario, wish.in_flight),
        server_origin=server_origin,
    )


def _offline_in_flight(server: ServerSettings, devices: int, batch: int) -> int:
    """Requests that keep every instance at work: each runs one full batch while the next one waits for it.

    Args:
        server: its settings.
        devices: that each have so many instances.
        batch: samples in one request.
    """
    requests_joined = max(1, -(-server.max_batch_size // batch)) if server.joins else 1
    return max(2 * server.instances * devices * requests_joined, _MIN_OFFLINE_IN_FLIGHT)


def tune(
    spec: ModelSpec,
    variant: Variant,
    scenario: Scenario,
    *,
    server: Fingerprint,
    samples_per_query: int,
    wishes: Wishes,
    choice: Choice | None = None,
    most_in_request: int = LARGEST_BATCH,
) -> Tuning:
    """Choose the settings of one scenario.

    Args:
        spec: the model.
        variant: its tensors on the platform.
        scenario: how it is queried.
        server: which it is; of its cores, 0 where they are not ours to count (GPU, remote).
        samples_per_query: of MultiStream.
        wishes: what the user asks for.
        choice: to be tried instead of the measured one.
        most_in_request: samples; as many as fit, where they travel in messages.

    Raises:
        ConfigError: the user's own table is damaged.
    """
    threads, origin = server.cores, "trial"
    if choice is None:
        choice, origin = _choose(spec, variant, scenario, server, samples_per_query)
    choice = wishes.over(choice)
    limit = wishes.max_batchsize or max((variant.batch_limit, *wishes.preferred_batch))
    limit = min(limit, variant.largest_batch)
    # The user's batch is what Offline is asked for, even where a smaller one was faster.
    wanted = (wishes.max_batchsize if scenario == Scenario.OFFLINE else None) or choice.client_batch
    # A choice may have been measured with more samples in a query than this one has.
    of_query = samples_per_query if scenario == Scenario.MULTI_STREAM else wanted
    batch = min(wanted, limit, of_query, most_in_request)
    settings = ServerSettings(
        instances=choice.instances,
        threads=threads and max(1, threads // choice.instances),
        max_batch_size=max(_joined(choice, scenario, server, batch, limit), *wishes.preferred_batch, 1),
        max_queue_delay_us=choice.max_queue_delay_us,
        device="gpu" if wishes.gpus else wishes.device,
        parameters=tuple(choice.parameters.items()),
        gpus=wishes.gpus,
        preferred_batch=wishes.preferred_batch,
    )
    in_flight = {
        Scenario.SINGLE_STREAM: 1,
        Scenario.MULTI_STREAM: -(-samples_per_query // batch),
        Scenario.SERVER: min(_SERVER_IN_FLIGHT, _SERVER_BYTES_IN_FLIGHT // variant.input.sample_bytes),
        Scenario.OFFLINE: _offline_in_flight(settings, len(wishes.gpus) or server.devices, batch),
    }[scenario]
    return Tuning(settings, batch, in_flight, origin)


def _joined(choice: Choice, scenario: Scenario, server: Fingerprint, batch: int, limit: int) -> int:
    """Most samples that Triton may run at once."""
    if scenario == Scenario.SERVER:
        return min(choice.max_batch or limit, limit)
    if scenario == Scenario.OFFLINE and (server.gpus or not server.cores):
        # Instances that are not ours to count may be faster with more than a request has.
        return limit
    # Joined, one instance would get what was meant for several, and the others would be idle.
    return batch


def rule(
    variant: Variant, scenario: Scenario, threads: int, samples_per_query: int, *, on_gpus: bool = False
) -> Choice:
    """The choice where nothing was measured."""
    if on_gpus:
        return _rule_on_gpus(variant, scenario, samples_per_query)
    by_size = max(1, _MAX_REQUEST_BYTES // variant.input.sample_bytes)
    if scenario == Scenario.OFFLINE:
        instances, batch = _most_instances(threads), min(_OFFLINE_BATCH, by_size)
        in_parts = threads == instances and batch > _RUN_BATCH
        return Choice(instances, batch, parameters={RUN_BATCH: str(_RUN_BATCH)} if in_parts else {})
    if scenario == Scenario.MULTI_STREAM:
        instances = min(_most_instances(threads), samples_per_query)
        return Choice(instances, min(-(-samples_per_query // instances), by_size))
    if scenario == Scenario.SERVER and threads:
        return Choice(_most_instances(threads), client_batch=1, max_batch=_SERVER_JOINED)
    return Choice(instances=1, client_batch=1)


def _rule_on_gpus(variant: Variant, scenario: Scenario, samples_per_query: int) -> Choice:
    """One instance on each GPU, and batches as large as the model declares.

    NVIDIA's Offline runs had batches of 2048 of ResNet-50 on one A100, in int8, which is for --max-batchsize
    to say: what a GPU's memory holds, no rule knows.
    """
    by_size = max(1, _MAX_GPU_REQUEST_BYTES // variant.input.sample_bytes)
    if scenario == Scenario.OFFLINE:
        return Choice(instances=1, client_batch=min(variant.batch_limit, by_size))
    if scenario == Scenario.MULTI_STREAM:
        return Choice(instances=1, client_batch=min(samples_per_query, by_size))
    delay_us = _GPU_QUEUE_DELAY_US if scenario == Scenario.SERVER else 0
    return Choice(instances=1, client_batch=1, max_queue_delay_us=delay_us)


def _most_instances(threads: int) -> int:
    return max(1, min(threads, _MAX_INSTANCES))


def _choose(
    spec: ModelSpec, variant: Variant, scenario: Scenario, server: Fingerprint, samples_per_query: int
) -> tuple[Choice, str]:
    """The measured choice, scaled to another number of threads, or the rule's; and where it is from."""
    platform = variant.platform
    found = [
        (measured, origin)
        for measured_on in (platform, platform.facts.same_runtime_as or platform)
        for measured, origin in _measured_of(server)
        if (measured.model, measured.platform, measured.scenario) == (spec.name, measured_on, scenario)
    ]
    if not found:
        on_gpus = bool(server.gpus)
        found_by_rule = rule(variant, scenario, server.cores, samples_per_query, on_gpus=on_gpus)
        return found_by_rule, GPU_RULE if on_gpus else "rule"
    # The first of equals: of the platform itself, and the user's own.
    measured, origin = max(found, key=lambda pair: pair[0].server.cores)
    if measured.platform != platform:
        origin += f", measured on {measured.platform}"
    if measured.server.cores == server.cores:
        return measured.choice, origin
    origin += f", measured with {measured.server.cores} threads"
    return _scaled(measured, scenario, server.cores, samples_per_query), origin


def _measured_of(server: Fingerprint) -> Iterator[tuple[Measured, str]]:
    """What is known of a server or its like, and where from."""
    for measured in table.read(table.OWN_FILE):
        is_same = dataclasses.replace(measured.server, cores=server.cores) == server
        if is_same and measured.holds_with(server.cores):
            yield measured, f"your tuning of {measured.date}"
    # The project's own is of CPUs, whichever they are.
    for measured in () if server.gpus else table.read(table.SHIPPED_FILE):
        if measured.holds_with(server.cores):
            yield measured, "shipped table"


def _scaled(measured: Measured, scenario: Scenario, threads: int, samples_per_query: int) -> Choice:
    """A choice for more threads than it was measured with."""
    choice = measured.choice
    instances, batch = 1, choice.client_batch
    if choice.instances > 1:
        instances = _most_instances(threads)
        if scenario == Scenario.MULTI_STREAM:
            # Every instance gets its part of a query.
            instances = min(instances, samples_per_query)
            batch = min(batch, -(-samples_per_query // instances))
    # Parts of a batch were small enough for the caches of a core, and are too small for several cores.
    is_wider = threads // instances > measured.server.cores // choice.instances
    parameters = {
        name: value for name, value in choice.parameters.items() if not (is_wider and name == RUN_BATCH)
    }
    return dataclasses.replace(choice, instances=instances, client_batch=batch, parameters=parameters)

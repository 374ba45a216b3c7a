"""How a model is served in each scenario: instances, threads, batches and requests in flight.

The choice was measured for the models, platforms and core counts in `measured_tuning.json`, by
`python -m harness.tune`, which does the same on any machine. Elsewhere the preference of the nearest core
count is scaled up, and where there is none a rule holds: one instance with all threads answers a single
sample soonest; one instance per core, with one thread each, gives the most samples per second of many, and
with that, under load, the shortest queues.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError
from harness.machine import files, paths
from harness.machine.from_json import loads
from harness.models.model_config import RUN_BATCH, ServerSettings
from harness.models.spec import ModelSpec, Variant
from harness.run.mlperf.rounds import Scenario

MEASURED_FILE = Path(__file__).with_name("measured_tuning.json")
OWN_FILE = paths.STATE_DIR / "measured_tuning.json"
"""What this machine's user measured; counts before ours."""

SERVERS_OWN = "the server's configuration"
"""An origin."""

_MAX_INSTANCES = 8
"""Every instance of a Python-based backend is a process with its own copy of the model."""
_OFFLINE_BATCH = 32
_RUN_BATCH = 4
"""Offline: samples of a request that an instance with one thread calculates at once: what they need fits into
a core's caches. Nowhere slower than all at once, and up to a fifth faster (`measured_tuning.json`)."""
_SERVER_JOINED = 2
"""Server: samples that an instance with a core of its own runs at once. Of 1, 2 and all that wait it was the
best or near it wherever it was measured (`measured_tuning.json`): all that wait make the next ones wait long.
"""
_MAX_REQUEST_BYTES = 32 << 20
"""Images of 1200x1200 (17 MB) fill the cores by themselves: joined, they only take memory."""
_MIN_OFFLINE_IN_FLIGHT = 4
"""Enough to hide the client's turn-around where the instances are not ours to count."""
_SERVER_IN_FLIGHT = 2048
_SERVER_BYTES_IN_FLIGHT = 2 << 30
"""Arrivals do not wait for earlier answers; these are only bounds on memory when a server falls behind."""


@dataclass(frozen=True)
class Choice:
    """What measurement decides; all else follows from it."""

    instances: int
    client_batch: int
    max_queue_delay_us: int = 0
    max_batch: int = 0
    """Most samples that Triton joins in Server; 0: the model's limit. Elsewhere the client's batch is it."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the backend, in config.pbtxt's terms."""


@dataclass(frozen=True)
class Measured:
    """One line of the table: the best choice that was found."""

    model: str
    platform: str
    scenario: str
    threads: int
    """CPU threads that the server had."""
    choice: Choice
    figure: str
    """What it reached, and what the others did."""


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
        Scenario.OFFLINE: max(2 * max(one.instances for one in live), _MIN_OFFLINE_IN_FLIGHT),
    }
    return dataclasses.replace(
        wish,
        server=dataclasses.replace(live[0], precision=wish.server.precision),
        client_batch=batch,
        in_flight=in_flight or derived.get(scenario, wish.in_flight),
        server_origin=server_origin,
    )


def tune(
    spec: ModelSpec,
    variant: Variant,
    scenario: Scenario,
    *,
    threads: int,
    samples_per_query: int,
    max_batchsize: int | None,
    device: str,
    choice: Choice | None = None,
) -> Tuning:
    """Choose the settings of one scenario.

    Args:
        spec: the model.
        variant: its tensors on the platform.
        scenario: how it is queried.
        threads: CPU threads that the server may use, 0 where they are not ours to count (GPU, remote).
        samples_per_query: of MultiStream.
        max_batchsize: the user's limit, if any.
        device: auto, cpu or gpu.
        choice: to be tried instead of the measured one.

    Raises:
        ConfigError: this machine's own table is damaged.
    """
    origin = "trial"
    if choice is None:
        choice, origin = _choose(spec, variant, scenario, threads, samples_per_query)
    limit = min(max_batchsize or variant.batch_limit, variant.batch_limit)
    # The user's batch is what Offline is asked for, even where a smaller one was faster.
    wanted = (max_batchsize if scenario == Scenario.OFFLINE else None) or choice.client_batch
    # A choice may have been measured with more samples in a query than this one has.
    batch = min(wanted, limit, samples_per_query if scenario == Scenario.MULTI_STREAM else wanted)
    in_flight = {
        Scenario.SINGLE_STREAM: 1,
        Scenario.MULTI_STREAM: -(-samples_per_query // batch),
        Scenario.SERVER: min(_SERVER_IN_FLIGHT, _SERVER_BYTES_IN_FLIGHT // variant.input.sample_bytes),
        # Every instance runs one full batch while the next one waits for it.
        Scenario.OFFLINE: max(2 * choice.instances, _MIN_OFFLINE_IN_FLIGHT),
    }[scenario]
    settings = ServerSettings(
        instances=choice.instances,
        threads=threads // choice.instances,
        max_batch_size=_joined(choice, scenario, threads, batch, limit),
        max_queue_delay_us=choice.max_queue_delay_us,
        device=device,
        parameters=tuple(choice.parameters.items()),
    )
    return Tuning(settings, batch, in_flight, origin)


def _joined(choice: Choice, scenario: Scenario, threads: int, batch: int, limit: int) -> int:
    """Most samples that Triton may run at once."""
    if scenario == Scenario.SERVER:
        return min(choice.max_batch or limit, limit)
    if scenario == Scenario.OFFLINE and not threads:
        # Instances that are not ours to count may be faster with more than a request has.
        return limit
    # Joined, one instance would get what was meant for several, and the others would be idle.
    return batch


def rule(variant: Variant, scenario: Scenario, threads: int, samples_per_query: int) -> Choice:
    """The choice where nothing was measured."""
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


def _most_instances(threads: int) -> int:
    return max(1, min(threads, _MAX_INSTANCES))


def _choose(
    spec: ModelSpec, variant: Variant, scenario: Scenario, threads: int, samples_per_query: int
) -> tuple[Choice, str]:
    """The measured choice, scaled to another number of threads, or the rule's; and where it is from."""
    platform = variant.platform
    found = [
        (measured, file)
        for measured_on in (platform, platform.facts.same_runtime_as or platform)
        for file in (OWN_FILE, MEASURED_FILE)
        for measured in read(file)
        if (measured.model, measured.platform, measured.scenario) == (spec.name, measured_on, scenario)
        and measured.threads <= threads
    ]
    if not found:
        return rule(variant, scenario, threads, samples_per_query), "rule"
    # The first of equals: of the platform itself, and this machine's own.
    measured, file = max(found, key=lambda pair: pair[0].threads)
    beside = f" on {measured.platform}" if measured.platform != platform else ""
    choice, origin = measured.choice, f"measured{beside} with {measured.threads} threads ({file.name})"
    if measured.threads == threads:
        return choice, origin
    return _scaled(measured, scenario, threads, samples_per_query), f"{origin}, scaled to {threads}"


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
    is_wider = threads // instances > measured.threads // choice.instances
    parameters = {
        name: value for name, value in choice.parameters.items() if not (is_wider and name == RUN_BATCH)
    }
    return dataclasses.replace(choice, instances=instances, client_batch=batch, parameters=parameters)


@functools.cache
def read(file: Path) -> tuple[Measured, ...]:
    """Read a table of measured choices; empty where there is no file.

    Raises:
        ConfigError: it is damaged.
    """
    if not file.exists():
        return ()
    try:
        return loads(tuple[Measured, ...], file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is damaged ({error}): delete it, or run python -m harness.tune") from error


def add(file: Path, new: Measured) -> None:
    """Put a line into a table, in place of the one for the same case.

    Raises:
        ConfigError: the table is damaged, or cannot be written.
    """
    lines = {(line.model, line.platform, line.scenario, line.threads): line for line in (*read(file), new)}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(dataclasses.asdict(lines[key])) for key in sorted(lines))
    files.write(file, f"[\n{text}\n]\n")
    read.cache_clear()

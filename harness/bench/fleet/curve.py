"""The curve: null servers and client processes, each number of one with each of the other that fits.

Over gRPC's own library once more, as TLS has it: there the client costs more, and is sooner the limit.
"""

import dataclasses
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bench.fleet import cpu
from harness.bench.fleet.cpu import Cores
from harness.bench.null import entry
from harness.bench.session import Ours, Session, began_s
from harness.machine.environment import cpu_count
from harness.machine.host.monitor import Monitor
from harness.run.config import run_config
from harness.run.config.tuning import Tuning
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared
from harness.server.lifecycle import ServerInfo
from harness.triton.client import TritonClient
from harness.triton.rpc import Rpc

logger = logging.getLogger(__name__)

IN_FLIGHT = 64
"""At each server."""


@dataclass(frozen=True)
class Measured:
    """One run, and who used the cores meanwhile."""

    ours: Ours
    cores: Cores | None
    """None of a run that was too short for readings."""

    @property
    def servers_us_per_sample(self) -> float | None:
        """CPU time of the servers and their stubs."""
        return self.cores.servers / self.ours.samples_per_s * 1e6 if self.cores else None


@dataclass(frozen=True)
class Point:
    """So many servers, asked by so many client processes; by round."""

    servers: int
    processes: int
    rpc: Rpc
    runs: tuple[Measured, ...]

    @property
    def queries_per_s(self) -> float:
        """Median."""
        return statistics.median(run.ours.samples_per_s for run in self.runs)

    @property
    def cores(self) -> Cores | None:
        """Of the run that is the middle one by its rate."""
        return sorted(self.runs, key=lambda run: run.ours.samples_per_s)[len(self.runs) // 2].cores

    @property
    def per_core(self) -> float | None:
        """Queries per second for each core that client and servers used: others change it little."""
        return self.queries_per_s / (self.cores.client + self.cores.servers) if self.cores else None

    @property
    def carried_per_s(self) -> float | None:
        """What the client processes would carry by their CPU time a query, each on a core of its own."""
        return self.queries_per_s * self.processes / self.cores.client if self.cores else None

    @property
    def shares(self) -> tuple[float, float]:
        """Least and most of the samples that one server answered, in any round, 0 to 1."""
        of_all = [
            samples / sum(run.ours.samples_by_server)
            for run in self.runs
            for samples in run.ours.samples_by_server
        ]
        return min(of_all), max(of_all)


@dataclass(frozen=True)
class Fleet:
    """Servers of the benchmark's own, of one repository."""

    infos: Sequence[ServerInfo]
    clients: Sequence[TritonClient]
    folder: Path
    """For logs."""

    def session(self, prepared: Prepared, servers: int, name: str) -> Session:
        """An entry on the first so many servers."""
        return Session(self.clients[:servers], prepared, self.folder / name)

    def run(
        self, session: Session, scenario: Scenario, tuning: Tuning, seconds: float, rpc: Rpc = Rpc.OWN
    ) -> Measured:
        """A test, watched."""
        with Monitor(lambda: cpu.read(self.infos), cpu.INTERVAL_S, cpu.LARGEST_SHARE) as monitor:
            ours = session.ours(scenario, tuning, seconds=seconds, rpc=rpc)
        return Measured(ours, cpu.used(monitor.readings, began_s(ours), seconds, cpu_count()))


def fitting(servers: Sequence[int], processes: Sequence[int]) -> list[tuple[int, int]]:
    """Servers and client processes: a process asks one server, and every server gets as many."""
    return [(few, many) for few in servers for many in processes if many == 1 or many % few == 0]


def measure(fleet: Fleet, counts: Sequence[int], rounds: int, seconds: float) -> list[Point]:
    """Measure each number of servers with each number of processes, for each kind of channel, in turns.

    Raises:
        HarnessError: a run failed.
    """
    null = entry.write_entry(
        fleet.infos[0].repository, "null_fleet", side_px=1, in_flight=IN_FLIGHT, transport=run_config.AUTO
    )
    everything = fleet.session(null, len(fleet.clients), "fleet")
    everything.load(entry.tuning(IN_FLIGHT), is_override=False)
    runs: dict[tuple[int, int, Rpc], list[Measured]] = {
        (servers, processes, rpc): [] for rpc in Rpc for servers, processes in fitting(counts, counts)
    }
    try:
        for number in range(rounds):
            for (servers, processes, rpc), found in runs.items():
                server = dataclasses.replace(null.config.server, client_processes=processes)
                asked = dataclasses.replace(null, config=dataclasses.replace(null.config, server=server))
                session = fleet.session(asked, servers, f"{servers}-servers-{processes}-processes")
                found.append(fleet.run(session, Scenario.OFFLINE, entry.tuning(IN_FLIGHT), seconds, rpc))
                rate = found[-1].ours.samples_per_s
                told = f"{servers} server(s), {processes} client process(es), {rpc}"
                logger.info("%s, round %d: %.0f", told, number + 1, rate)
    finally:
        everything.close()
    return [Point(*setup, tuple(found)) for setup, found in runs.items()]

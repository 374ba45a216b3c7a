"""A server of the benchmark's own, and the two clients that ask it: our harness and a plain loop."""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.bench.plain import PlainJob, PlainOutcome
from harness.errors import InferenceError
from harness.machine import paths
from harness.machine.processes import start_module
from harness.models.model_config import model_config, to_json
from harness.run import runner
from harness.run.config.scenario import ScenarioPlan
from harness.run.config.tuning import Tuning
from harness.run.mlperf import figures, logs
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared
from harness.run.results.bottleneck import Evidence, Load, evidence_of
from harness.run.serving import check_served, executed_precision
from harness.run.worker import timeline
from harness.run.worker.job import Outcome
from harness.server import lifecycle
from harness.server.lifecycle import ServerInfo
from harness.triton.address import Address, parse_headers
from harness.triton.client import TritonClient
from harness.triton.rpc import Rpc

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ours:
    """One LoadGen test through our harness; figures are LoadGen's."""

    samples_per_s: float
    p50_ms: float
    """Of queries."""
    p90_ms: float
    p99_ms: float
    client_us_per_sample: float
    memory_bytes: int
    """Most memory of the process that ran LoadGen, beyond the samples that it had loaded."""
    evidence: Evidence | None
    """None where the server gave no statistics."""
    log_dir: str
    """LoadGen's logs and the timeline."""
    samples_by_server: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plain:
    """One run of the plain loop."""

    samples_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    client_us_per_sample: float
    mean_batch_size: float


@contextlib.contextmanager
def own_server() -> Iterator[ServerInfo]:
    """A server for as long as the block takes; its repository is empty at first."""
    state_dir = paths.STATE_DIR / f"server-{os.getpid()}"
    repository = state_dir / "entries"
    repository.mkdir(parents=True, exist_ok=True)
    with lifecycle.for_a_while(repository, state_dir) as info:
        yield info


@contextlib.contextmanager
def own_servers(count: int) -> Iterator[list[ServerInfo]]:
    """Several for as long as the block takes, of one repository."""
    with own_server() as first, contextlib.ExitStack() as others:
        folders = [paths.STATE_DIR / f"server-{os.getpid()}" / f"other-{n}" for n in range(1, count)]
        yield [
            first,
            *(others.enter_context(lifecycle.for_a_while(first.repository, folder)) for folder in folders),
        ]


def address(server: ServerInfo) -> Address:
    """How a server of ours is reached, with its key."""
    return Address(server.grpc_url, headers=parse_headers(server.headers), metrics=server.metrics_url)


def began_s(run: Ours) -> float:
    """When LoadGen's test of a run began, in seconds since the epoch; it notes whole ones."""
    noted = logs.read_detail(Path(run.log_dir)).values["test_datetime"]
    return datetime.fromisoformat(str(noted)).timestamp()


class Session:
    """One entry on such servers."""

    def __init__(self, clients: Sequence[TritonClient], prepared: Prepared, folder: Path) -> None:
        """Ask nothing yet.

        Args:
            clients: of the servers; the plain loop asks the first.
            prepared: the entry, and its samples.
            folder: for the logs of every run.
        """
        self._clients, self._prepared, self._folder = clients, prepared, folder
        self._entry = prepared.manifest.entry
        self._precision: str | None = None

    def load(self, tuning: Tuning, *, is_override: bool = True) -> None:
        """Have the entry loaded as a scenario wants it (or, without override, as its file says).

        Raises:
            ServerError: it cannot be loaded, or is not what it should be.
        """
        variant = self._prepared.manifest.variant
        config = to_json(model_config(self._entry, variant, tuning.server)) if is_override else None
        for client in self._clients:
            client.load(self._entry, config)
            check_served(client, self._entry, variant)
        wanted = self._prepared.config.choice.precision
        self._precision = executed_precision(self._clients, self._entry, variant, wanted)

    def close(self) -> None:
        """Have the entry unloaded."""
        for client in self._clients:
            client.unload(self._entry)

    def tuning(self, scenario: Scenario) -> Tuning:
        """What the harness would choose."""
        test = ScenarioPlan(self._prepared.config, scenario)
        return test.tuning(self._prepared.manifest.variant, [client.server for client in self._clients])

    def ours(
        self,
        scenario: Scenario,
        tuning: Tuning,
        *,
        seconds: float,
        rate: float | None = None,
        rpc: Rpc = Rpc.OWN,
    ) -> Ours:
        """Run LoadGen as the harness does, for a given time whatever the number of queries.

        Args:
            scenario: LoadGen's.
            tuning: as the entry was loaded with.
            seconds: shortest duration.
            rate: Server: queries per second. Offline: samples per second to expect. None: calibrated.
            rpc: who carries the requests.

        Raises:
            InferenceError: a request failed.
        """
        asked = self._prepared.config
        origins = {**asked.provenance, "time": "harness.bench", "qps": "harness.bench"}
        changes = dataclasses.replace(asked.changes, time_s=seconds, qps=rate)
        config = dataclasses.replace(asked, changes=changes, provenance=origins)
        prepared = dataclasses.replace(self._prepared, config=config)
        plan = ScenarioPlan(config, scenario).plan(Mode.PERFORMANCE, len(prepared.dataset.samples))
        plan = dataclasses.replace(plan, min_query_count=1)
        log_dir = self._log_dir("ours" if rpc == Rpc.OWN else rpc, scenario)
        job = runner.job_of(prepared, self._clients, plan, tuning, log_dir, self._precision)
        servers = tuple(dataclasses.replace(server, rpc=rpc) for server in job.servers)
        outcome = runner.run_test(dataclasses.replace(job, servers=servers), self._clients)
        if outcome.error or outcome.failures.requests:
            raise InferenceError(
                f"{self._entry} {scenario}: {outcome.error or outcome.failures.first}; see {log_dir}"
            )
        loaded = plan.performance_sample_count * prepared.manifest.variant.input.sample_bytes
        count = len(self._clients)
        load = Load(tuning.in_flight * count, tuning.server.instances * count, config.server.client_processes)
        return _ours(log_dir, outcome, scenario, load, loaded)

    def plain(self, scenario: Scenario, tuning: Tuning, *, seconds: float, ours: Ours) -> Plain:
        """Run the plain loop, with as many samples under way as the harness has.

        Args:
            scenario: LoadGen's.
            tuning: as the entry was loaded with.
            seconds: how long, except in Server.
            ours: the test before, whose arrivals it repeats in Server.

        Raises:
            InferenceError: a request failed.
        """
        config = self._prepared.config
        log_dir = self._log_dir("plain", scenario)
        job = PlainJob(
            url=self._clients[0].url,
            entry=self._entry,
            entry_dir=str(self._prepared.entry_dir),
            samples=str(self._prepared.samples),
            scenario=scenario,
            in_flight=tuning.in_flight * tuning.client_batch,
            samples_per_query=ScenarioPlan(config, scenario).rule.samples_per_query,
            arrivals=str(Path(ours.log_dir) / timeline.FILE_NAME),
            seconds=seconds,
            outcome=str(log_dir / "outcome.json"),
        )
        job_file = log_dir / "job.json"
        job_file.write_text(json.dumps(dataclasses.asdict(job), indent=2), encoding="utf-8")
        # Of the proxies that tritonclient would take even for this machine's own server.
        no_proxy = {"no_grpc_proxy": "127.0.0.1,localhost"}
        process = start_module("harness.bench.plain", str(job_file), environment=no_proxy)
        try:
            process.wait()
        finally:
            process.kill()
            process.wait()
        try:
            fields = json.loads(Path(job.outcome).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InferenceError(f"the plain loop died without a word; see {log_dir}") from error
        if "error" in fields:
            raise InferenceError(f"{self._entry} {scenario}, plain loop: {fields['error']}")
        return _plain(PlainOutcome(**fields))

    def _log_dir(self, path: str, scenario: Scenario) -> Path:
        for number in range(1, 1000):
            folder = self._folder / f"{scenario}-{path}-{number}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
        raise AssertionError("a thousand rounds")


def _ours(log_dir: Path, outcome: Outcome, scenario: Scenario, load: Load, loaded: int) -> Ours:
    log = logs.read_detail(log_dir)

    def logged(value: float | None) -> float:
        if value is None:
            raise InferenceError(f"LoadGen logged no figures of {scenario} in {log_dir}")
        return value

    mean_ns = logged(log.latency_ns("mean"))
    rate = logged(figures.rate(log, scenario))
    if scenario == Scenario.MULTI_STREAM:
        rate *= log.number("effective_samples_per_query") or 1
    p50, p90, p99 = (logged(figures.percentile_ms(log, percentile)) for percentile in (50, 90, 99))
    statistics = outcome.statistics
    samples = statistics.samples if statistics else 0
    evidence = None
    if statistics:
        evidence = evidence_of(
            statistics,
            scenario,
            load,
            samples_per_s=rate,
            mean_latency_ns=mean_ns,
            client_cpu_s=outcome.client_cpu_s,
            test_s=outcome.test_s,
        )
    return Ours(
        samples_per_s=rate,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        client_us_per_sample=outcome.client_cpu_s / samples * 1e6 if samples else 0.0,
        memory_bytes=outcome.peak_rss_bytes - loaded,
        evidence=evidence,
        log_dir=str(log_dir),
        samples_by_server=tuple(book.counted_samples for book in outcome.books),
    )


def _plain(outcome: PlainOutcome) -> Plain:
    return Plain(
        samples_per_s=outcome.samples / outcome.seconds,
        p50_ms=outcome.p50_ms,
        p90_ms=outcome.p90_ms,
        p99_ms=outcome.p99_ms,
        client_us_per_sample=outcome.client_cpu_s / outcome.samples * 1e6,
        mean_batch_size=outcome.mean_batch_size,
    )

"""One scenario as it will be run: the round's rules with what was asked for instead, each with its origin."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.machine.environment import cpu_count
from harness.models.spec import LARGEST_BATCH, Variant
from harness.run.config.measured.fingerprint import Fingerprint, fingerprint
from harness.run.config.run_config import AUTO, RunConfig, RunMode
from harness.run.config.tuning import Tuning, Wishes, tune
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import (
    EARLY_STOPPING_MIN_QUERIES,
    QUICK_MIN_QUERIES,
    Rules,
    Scenario,
    rules,
)
from harness.run.mlperf.user_conf import (
    MIN_DURATION,
    MIN_QUERY_COUNT,
    PERFORMANCE_SAMPLE_COUNT,
    SAMPLES_PER_QUERY,
    TARGET_LATENCY,
    TARGET_QPS,
)
from harness.server import launch, lifecycle
from harness.triton.address import Address
from harness.triton.client import is_on_this_host
from harness.triton.messages import most_in_message

logger = logging.getLogger(__name__)

USER_CONF = "--user_conf"
PACED = (Scenario.SERVER, Scenario.OFFLINE)
"""Scenarios that have a rate."""


@dataclass(frozen=True)
class Sourced:
    """A number, and where it comes from."""

    value: float
    origin: str


@dataclass(frozen=True)
class ScenarioPlan:
    """One scenario of a request; where Server has several latency bounds, with one of them."""

    config: RunConfig
    scenario: Scenario
    bound_s: float | None = None
    """Server's latency bound, None for the round's."""

    @property
    def rule(self) -> Rules:
        """What the round asks for."""
        return rules(self.config.changes.round, self.config.spec, self.scenario)

    @property
    def duration(self) -> Sourced:
        """The shortest duration of a test in milliseconds; 0 where a number of queries ends it."""
        changes = self.config.changes
        if changes.time_s is not None:
            return self._asked(max(1, int(changes.time_s * 1000)), "time")
        if listed := self._listed(MIN_DURATION):
            return listed
        if changes.count is not None:
            return self._asked(0, "count")
        return self._of_round(self.rule.min_duration_ms)

    @property
    def queries(self) -> Sourced:
        """The fewest queries of a test; in Offline the fewest samples of its one query."""
        changes, scenario = self.config.changes, self.scenario
        if asked := changes.queries(scenario):
            names = {Scenario.SINGLE_STREAM: "queries_single", Scenario.OFFLINE: "queries_offline"}
            return self._asked(asked, names.get(scenario, "queries_multi"))
        if listed := self._listed(MIN_QUERY_COUNT):
            return listed
        if changes.time_s is not None:
            return Sourced(QUICK_MIN_QUERIES[scenario], "fewest that LoadGen can judge")
        if changes.count is not None:
            # A quick run asks every sample about once; else --count is the reference's: so many queries.
            about_once = -(-changes.count // self.samples_per_query.value)
            return self._asked(about_once if self.config.request.is_quick else changes.count, "count")
        return self._of_round(self.rule.min_query_count)

    @property
    def samples_per_query(self) -> Sourced:
        """Of MultiStream; 1 elsewhere."""
        if self.scenario == Scenario.MULTI_STREAM:
            if self.config.changes.samples_per_query:
                return self._asked(self.config.changes.samples_per_query, "samples_per_query")
            if listed := self._listed(SAMPLES_PER_QUERY):
                return listed
        return self._of_round(self.rule.samples_per_query)

    @property
    def performance_samples(self) -> Sourced:
        """Samples that performance runs draw from, of a data set that is large enough."""
        if self.config.changes.performance_sample_count:
            return self._asked(self.config.changes.performance_sample_count, "performance_sample_count")
        listed = self._listed(PERFORMANCE_SAMPLE_COUNT)
        return listed or Sourced(self.rule.performance_sample_count, "model")

    @property
    def rate(self) -> Sourced | None:
        """Queries (Offline: samples) per second; None where it is looked for, or there is none."""
        if self.scenario not in PACED:
            return None
        if self.config.changes.qps is not None:
            return self._asked(self.config.changes.qps, "qps")
        return self._listed(TARGET_QPS)

    @property
    def is_searched(self) -> bool:
        """Whether Server's rate is searched: it was not given, and the test is more than some queries."""
        return self.scenario == Scenario.SERVER and self.rate is None and self.duration.value > 0

    def ends_early(self, plan: Plan) -> bool:
        """Whether a test at a rate that was given ends once its bound cannot be kept any more.

        Never a run by the rules, which know no result of a test that was ended; and none whose answers are
        all that is asked for, or of so few queries that LoadGen calls them INVALID at any rate.
        """
        request, changes = self.config.request, self.config.changes
        is_wanted = not (changes.no_early_end or changes.is_official or request.is_quick)
        queries = max(plan.min_query_count, plan.target_qps * plan.min_duration_ms / 1000)
        return (
            is_wanted
            and (plan.scenario, plan.mode) == (Scenario.SERVER, Mode.PERFORMANCE)
            and request.mode != RunMode.SUBMISSION
            and self.rate is not None
            and queries >= EARLY_STOPPING_MIN_QUERIES[Scenario.SERVER]
        )

    @property
    def bound(self) -> Sourced:
        """Server's latency bound in nanoseconds."""
        if self.bound_s is None:
            return self._of_round(self.rule.server_target_latency_ns)
        origin = self.config.provenance["max_latency"] if self.config.changes.max_latency_s else USER_CONF
        return Sourced(int(self.bound_s * 1e9), origin)

    def plan(self, mode: Mode, sample_count: int | None) -> Plan:
        """What LoadGen is told of a test.

        Args:
            mode: what is tested.
            sample_count: of the data set; None where it is not known.
        """
        samples, rule, rate = int(self.performance_samples.value), self.rule, self.rate
        return Plan(
            scenario=self.scenario,
            mode=mode,
            min_duration_ms=int(self.duration.value),
            min_query_count=int(self.queries.value),
            performance_sample_count=samples if sample_count is None else min(samples, sample_count),
            samples_per_query=int(self.samples_per_query.value),
            server_target_latency_ns=int(self.bound.value),
            qsl_seed=rule.qsl_seed,
            sample_index_seed=rule.sample_index_seed,
            schedule_seed=rule.schedule_seed,
            target_qps=rate.value if rate else 1.0,
        )

    def server(self, variant: Variant, servers: Sequence[Address]) -> Fingerprint:
        """Which server is asked, as far as it tells; of several, which all get the same settings, the first.

        Args:
            variant: the model as it is served.
            servers: none for one of our own.
        """
        asked, local = self.config.server, sum(map(is_on_this_host, servers))
        device = self.device(variant, servers)
        are_local = local == len(servers) and device != "gpu"
        # Servers on this machine share its cores.
        own_cpus = max(1, cpu_count() // max(1, local)) if are_local else 0
        found = fingerprint(
            servers[0] if servers else None,
            device,
            asked.threads or own_cpus,
            is_cpu_only=variant.platform.facts.is_cpu_only,
        )
        # Where it has GPUs, it is they that its instances are for, not the cores.
        return dataclasses.replace(found, cores=asked.threads or 0) if found.gpus else found

    def device(self, variant: Variant, servers: Sequence[Address]) -> str:
        """Where the model is to be: `auto` is Triton's choice, which does not know what frameworks can.

        Args:
            variant: the model as it is served.
            servers: as for `server`.
        """
        asked, able = self.config.server.device, launch.gpu_backends()
        is_ours = not servers or lifecycle.at(servers[0].url) is not None
        # It has GPUs, for another framework: this one is installed in a build for CPUs.
        lacks_build = is_ours and bool(able) and variant.platform.facts.triton_backend not in able
        return "cpu" if asked == AUTO and lacks_build else asked

    def wishes(self, device: str) -> Wishes:
        """What was asked of the server's settings, with the model on a `device`."""
        asked = self.config.server
        return Wishes(
            device=device,
            max_batchsize=asked.max_batchsize,
            instances=asked.instances,
            gpus=asked.gpus,
            queue_delay_us=asked.queue_delay_us,
            preferred_batch=asked.preferred_batch,
        )

    def tuning(self, variant: Variant, servers: Sequence[Address]) -> Tuning:
        """The settings of server and client.

        Args:
            variant: the model as it is served.
            servers: none for one of our own.

        Raises:
            ConfigError: the user's table of measured settings is damaged.
        """
        asked, most = self.config.server, self._most_in_request(variant, servers)
        if self.scenario == Scenario.OFFLINE and (asked.max_batchsize or 0) > most:
            logger.info("%s: requests have up to %d samples, since messages hold 2 GiB", self.scenario, most)
        tuning = tune(
            self.config.spec,
            variant,
            self.scenario,
            server=self.server(variant, servers),
            samples_per_query=int(self.samples_per_query.value),
            wishes=self.wishes(self.device(variant, servers)),
            most_in_request=most,
        )
        server = dataclasses.replace(tuning.server, precision=self.config.choice.precision)
        return dataclasses.replace(tuning, server=server, in_flight=asked.in_flight or tuning.in_flight)

    def _most_in_request(self, variant: Variant, servers: Sequence[Address]) -> int:
        """Samples that fit in a request, to whichever server."""
        is_shared = self.config.server.transport != "grpc" and all(map(is_on_this_host, servers))
        return LARGEST_BATCH if is_shared else min(LARGEST_BATCH, most_in_message(variant.input))

    @property
    def is_shortened(self) -> bool:
        """Whether less is asked for than the round wants."""
        rule, changes = self.rule, self.config.changes
        # A duration that was asked for has its own fewest queries.
        has_fewer = changes.time_s is None and self.queries.value < rule.min_query_count
        is_brief = self.duration.value < rule.min_duration_ms
        return is_brief or has_fewer or changes.count is not None

    def deviations(self, are_here: bool | None = None) -> Iterator[str]:
        """What keeps this from being a test by MLPerf's rules, whatever the model's weights and the data.

        Args:
            are_here: whether all servers were seen to be on this machine; None where nobody has looked.
        """
        config, rule = self.config, self.rule
        yield from self._changed_rules()
        if not (all(map(is_on_this_host, config.server.servers)) if are_here is None else are_here):
            yield (
                "a server on another machine, or not seen to be on this one (it cannot map our memory): "
                "MLPerf's Network division has other rules"
            )
        if not rule.scenario_in_round:
            yield f"round {rule.round} had another MultiStream, or none"
        if not rule.model_in_round:
            yield f"{config.model} is not a benchmark of round {rule.round}"

    def _changed_rules(self) -> Iterator[str]:
        """What the user asked for instead of what the round says."""
        changes, rule = self.config.changes, self.rule
        duration_ms, queries = self.duration.value, self.queries.value
        if changes.time_s is not None or 0 < duration_ms < rule.min_duration_ms:
            yield f"{duration_ms / 1000:g} s instead of {rule.min_duration_ms / 1000:g} s"
        elif changes.count is not None:
            yield f"shortened to --count {changes.count}"
        elif queries < rule.min_query_count:
            yield f"{queries:.0f} queries instead of {rule.min_query_count}"
        if self.bound_s is not None:
            yield "another latency bound than MLPerf's"
        size, samples = self.samples_per_query.value, self.performance_samples.value
        if size != rule.samples_per_query:
            yield f"{size:.0f} samples in a query instead of {rule.samples_per_query}"
        if samples < rule.performance_sample_count:
            yield f"{samples:.0f} samples to draw from instead of {rule.performance_sample_count}"

    def _asked(self, value: float, option: str) -> Sourced:
        return Sourced(value, self.config.provenance[option])

    def _listed(self, key: str) -> Sourced | None:
        value = self.config.changes.user_conf.get(self.scenario, key)
        return Sourced(value, USER_CONF) if value else None

    def _of_round(self, value: float) -> Sourced:
        return Sourced(value, f"round {self.rule.round}")


def overlong(config: RunConfig) -> Iterator[str]:
    """Which tests take longer than their duration, as their fewest queries do at the rate that was given."""
    if config.request.mode == RunMode.ACCURACY:
        return
    for test in scenarios_of(config):
        duration_s, queries, rate = test.duration.value / 1000, test.queries, test.rate
        if rate and duration_s and queries.value > rate.value * duration_s:
            unit = "samples" if test.scenario == Scenario.OFFLINE else "queries"
            is_search = config.request.mode == RunMode.FIND_PEAK
            what = "the first test of LoadGen's search" if is_search else test.scenario
            yield (
                f"{what} at {rate.value:g} a second takes {queries.value / rate.value:.0f} s "
                f"instead of {duration_s:g}: it has at least {queries.value:.0f} {unit} ({queries.origin})"
            )


def scenarios_of(config: RunConfig) -> Iterator[ScenarioPlan]:
    """The scenarios of a request, in its order; Server once for each latency bound."""
    for scenario in config.request.scenarios:
        bounds: Sequence[float | None] = (None,)
        if scenario == Scenario.SERVER:
            listed = config.changes.user_conf.get(scenario, TARGET_LATENCY)
            bounds = config.changes.max_latency_s or ((listed / 1000,) if listed else bounds)
        for bound_s in bounds:
            yield ScenarioPlan(config, scenario, bound_s)

"""The search for the best settings: candidates, rounds, the best.

Every candidate is loaded and asked for a few seconds, all of them in turn and then again those that are not
far behind; the best median is what later runs of the same server take their settings from.
"""

import dataclasses
import datetime
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InferenceError, ServerError
from harness.machine import progress
from harness.machine.processes import start_module
from harness.models.model_config import RUN_BATCH, model_config, to_json
from harness.models.spec import Variant
from harness.run import runner
from harness.run.borrowing import Loan
from harness.run.config import tuning
from harness.run.config.measured.fingerprint import Fingerprint
from harness.run.config.measured.table import Choice, Measured
from harness.run.config.scenario import ScenarioPlan
from harness.run.mlperf import figures
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared
from harness.run.serving import ModelLoader, check_served
from harness.run.worker.job import Job
from harness.triton.client import TritonClient

Measure = Callable[[Choice], float]
"""A choice's figure; less is better (`harness.tune.measure`)."""

_ROUNDS = 3
_SERVER_LOAD = 0.8
"""Of the rate that single samples reach when there is always one waiting: enough for queues to form."""
_HOPELESS = 1.3
"""A candidate that is so much worse than the best one is not tried again: noise is less."""
_CLEAR = 0.95
"""A candidate must be this much better than the rule's choice: less is noise."""

_NOISE = 0.05
"""Of any choice's figures, at least, however near to each other three of them were."""
_UNCOUNTED = (1, 2, 4)
"""Instances to try where it is not known how many would fill the server."""

_RUN_BATCHES = (2, 4)
"""Offline: parts that a full batch is calculated in, which a core's caches hold."""


def candidates(
    variant: Variant, scenario: Scenario, threads: int, samples_per_query: int, *, on_gpus: bool = False
) -> list[Choice]:
    """Settings worth trying; the rule's choice is the first."""
    by_rule = tuning.rule(variant, scenario, threads, samples_per_query, on_gpus=on_gpus)
    batches = {by_rule.client_batch}
    several = {1, threads} if threads else set(_UNCOUNTED)
    splits = {1} if scenario == Scenario.SINGLE_STREAM else several
    if scenario == Scenario.OFFLINE:
        batches |= {size for size in (4, 8, 64) if size <= variant.batch_limit and by_rule.client_batch > 1}
    if scenario == Scenario.MULTI_STREAM and by_rule.client_batch > 1:
        batches |= {samples_per_query}
        batches |= {-(-samples_per_query // instances) for instances in splits if not threads}
    spinning = "" if scenario == Scenario.OFFLINE else variant.platform.facts.spin_parameter
    parameters: Sequence[Mapping[str, str]] = ({}, {spinning: "1"}) if spinning else ({},)
    is_joined = scenario == Scenario.SERVER and variant.max_batch_size > 1 and not on_gpus
    joined = {0, 1, 2} if is_joined else {0}
    found = [by_rule] + [
        Choice(instances, batch, max_queue_delay_us=delay_us, max_batch=most, parameters=extra)
        for instances in sorted(splits)
        for batch in sorted(batches)
        for delay_us in sorted({0, by_rule.max_queue_delay_us})
        for most in sorted(joined)
        for extra in parameters
        # An instance with one thread has no other to wait for.
        if not extra or instances < threads
    ]
    if scenario == Scenario.OFFLINE and not on_gpus:
        found += [
            dataclasses.replace(by_rule, instances=instances, parameters={RUN_BATCH: str(size)})
            for instances in sorted(splits)
            for size in _RUN_BATCHES
            if size < by_rule.client_batch
        ]
    return [choice for number, choice in enumerate(found) if choice not in found[:number]]


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    choices: Sequence[Choice]
    """All candidates, in their order."""
    figures: Sequence[Sequence[float]]
    """Of each candidate, by round; less is better."""
    best: int
    """Which of them; the first is the rule's."""

    @property
    def choice(self) -> Choice:
        """The best one."""
        return self.choices[self.best]

    @property
    def medians(self) -> list[float]:
        """Of each candidate's figures."""
        return [statistics.median(figures) for figures in self.figures]

    @property
    def lead(self) -> float:
        """See `Measured.lead`."""
        return max(0.0, 1 - self.medians[self.best] / self.medians[self._rival])

    @property
    def noise(self) -> float:
        """By what share the rounds of the best or its rival differed."""
        both = (self.figures[self.best], self.figures[self._rival])
        return max(_NOISE, *((max(found) - min(found)) / statistics.median(found) for found in both))

    @property
    def _rival(self) -> int:
        by_rule, medians = self.choices[0], self.medians
        if self.choice.instances == by_rule.instances:
            return 0
        like_it = [n for n, choice in enumerate(self.choices) if choice.instances == by_rule.instances]
        return min(like_it, key=medians.__getitem__)


def search(choices: Sequence[Choice], measure: Measure, title: str) -> Found:
    """Try all candidates in turn, several rounds; the first is the rule's: only a clear win replaces it."""
    figures: list[list[float]] = [[] for _ in choices]
    tried = list(range(len(choices)))
    for number in range(_ROUNDS if len(choices) > 1 else 1):
        turn = f"{title}, round {number + 1} of up to {_ROUNDS}"
        for one in progress.track(tried, turn, len(tried)):
            figures[one].append(measure(choices[one]))
        medians = [statistics.median(found) for found in figures]
        tried = [one for one in tried if medians[one] <= min(medians) * _HOPELESS]
        if len(tried) == 1:
            break
    best = min(range(len(choices)), key=medians.__getitem__)
    return Found(choices, figures, best if medians[best] <= medians[0] * _CLEAR else 0)


def find_best(
    prepared: Prepared, client: TritonClient, scenario: Scenario, loan: Loan | None = None
) -> Measured:
    """Try all candidates of one scenario on a server; `loan` where that is not ours.

    Raises:
        HarnessError: the server cannot load a candidate, or a request fails.
    """
    config, variant = prepared.config, prepared.manifest.variant
    loader = ModelLoader(client, prepared.manifest.entry, loan)
    test = ScenarioPlan(config, scenario)
    server = test.server(variant, [client.server])
    per_query, on_gpus = test.rule.samples_per_query, bool(server.gpus)
    choices = candidates(variant, scenario, server.cores, per_query, on_gpus=on_gpus)
    rate = _server_rate(prepared, loader, server) if scenario == Scenario.SERVER else 1.0
    found = search(
        choices,
        lambda choice: _measure(prepared, loader, scenario, choice, server, rate),
        f"{scenario}: trying settings",
    )
    figure = described(found, scenario, f" at {rate:.1f} queries/s" if scenario == Scenario.SERVER else "")
    return Measured(
        config.model,
        config.platform,
        scenario,
        server,
        found.choice,
        lead=round(found.lead, 3),
        noise=round(found.noise, 3),
        date=datetime.date.today().isoformat(),
        figure=figure,
    )


def described(found: Found, scenario: Scenario, at: str = "") -> str:
    """What the best choice reached, under which load, and what the others did."""
    shown = [_shown(scenario, median) for median in found.medians]
    others = ", ".join(
        f"{short(choice)} {figure}"
        for number, (choice, figure) in enumerate(zip(found.choices, shown, strict=True))
        if number != found.best
    )
    return f"{shown[found.best]}{at}{' against ' if others else ''}{others}"


def _server_rate(prepared: Prepared, loader: ModelLoader, server: Fingerprint) -> float:
    """Queries per second that load the server well, but do not flood it."""
    on_gpus = bool(server.gpus)
    many = tuning.rule(prepared.manifest.variant, Scenario.OFFLINE, server.cores, 1, on_gpus=on_gpus)
    one_each = dataclasses.replace(many, client_batch=1)
    return _SERVER_LOAD / _measure(prepared, loader, Scenario.OFFLINE, one_each, server, 1.0)


def _measure(
    prepared: Prepared,
    loader: ModelLoader,
    scenario: Scenario,
    choice: Choice,
    server: Fingerprint,
    rate: float,
) -> float:
    config, facts = prepared.config, prepared.manifest
    test = ScenarioPlan(config, scenario)
    trial = tuning.tune(
        config.spec,
        facts.variant,
        scenario,
        server=server,
        samples_per_query=test.rule.samples_per_query,
        wishes=tuning.Wishes(device=test.device(facts.variant, [loader.client.server])),
        choice=choice,
    )
    if not loader.load(to_json(model_config(facts.entry, facts.variant, trial.server))):
        raise ServerError(f"{loader.client.url} lets nobody choose the settings of {facts.entry}")
    check_served(loader.client, facts.entry, facts.variant)
    plan = test.plan(Mode.PERFORMANCE, len(prepared.dataset.samples))
    with tempfile.TemporaryDirectory() as folder:
        plan = dataclasses.replace(plan, target_qps=rate)
        job = runner.job_of(prepared, [loader.client], plan, trial, Path(folder))
        return _in_a_process(job, Path(folder) / "job.json")


def _in_a_process(job: Job, file: Path) -> float:
    file.write_text(json.dumps(dataclasses.asdict(job)), encoding="utf-8")
    child = start_module("harness.tune.measure", str(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = child.communicate()
    if child.returncode:
        raise InferenceError(errors.strip().rpartition("\n")[2].removeprefix("error: "))
    return float(output)


def short(choice: Choice) -> str:
    """A choice in a few words."""
    extra = "".join(f" {name.rpartition('.')[2]}={value}" for name, value in choice.parameters.items())
    joined = f", {choice.max_batch} at once" if choice.max_batch else ""
    delay = f", held up to {choice.max_queue_delay_us} us" if choice.max_queue_delay_us else ""
    instances = figures.counted(choice.instances, "instance")
    return f"{instances}, batch {choice.client_batch}{joined}{delay}{extra}:"


def _shown(scenario: Scenario, figure: float) -> str:
    return f"{1 / figure:.1f} samples/s" if scenario == Scenario.OFFLINE else f"{figure * 1000:.2f} ms"

"""Server's rate: looked for with short LoadGen tests, then confirmed by one as long as was asked for."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.machine.progress import about
from harness.run.mlperf import figures, logs, verdict
from harness.run.mlperf.early_stopping import share_over
from harness.run.mlperf.plan import Plan
from harness.run.mlperf.rate_search import Probe, Search, bracket, confirming_rates, probes_left, search
from harness.run.mlperf.rounds import EARLY_STOPPING_MIN_QUERIES
from harness.run.worker.job import Job, Outcome

logger = logging.getLogger(__name__)

_PROBE_SHARE = 1 / 3
"""Of the duration. Shorter tests let rates pass at which the queue only begins to grow, and what then has to
be made again is the test of full length."""
_SHORTEST_PROBE_MS = 10_000
_LONGEST_PROBE_MS = 60_000
_PROBE_QUERIES = 100
"""Fewest of a probe: of a slow model, more would take too long."""
_WORDS = {
    (False, True): "kept",
    (False, False): "over the bound",
    (True, True): "VALID",
    (True, False): "not VALID",
}
"""What came of a test, by whether it is a confirming one and whether the bound was kept."""

Run = Callable[[Job], Outcome]


class _Failed(Exception):
    """A test failed, which ends the search."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def usual_s(duration_s: float, beside_s: float) -> float:
    """How long a search usually takes for a test of a duration; `beside_s`: of each, beside its duration."""
    return probes_left([]) * (_probe_ms(int(duration_s * 1000)) / 1000 + beside_s)


def _probe_ms(full_ms: int) -> int:
    """The duration of each test of a search for one of a duration."""
    return min(full_ms, int(min(max(_SHORTEST_PROBE_MS, full_ms * _PROBE_SHARE), _LONGEST_PROBE_MS)))


@dataclass
class Searcher:
    """Makes the tests of one search, each in a numbered folder; the last becomes the job's own."""

    job: Job
    """The test whose rate is looked for; its `log_dir` does not exist yet."""
    folder: Path
    run: Run
    probes: list[Probe] = field(default_factory=list)

    def find(self) -> Outcome:
        """Look for the highest rate that keeps the bound, and confirm it; what the last test came to.

        Where no rate keeps the bound, that is a test at the rate that was tried first.
        """
        try:
            tried = search(self._probe, self.job.plan.server_target_latency_ns / 1e9)
        except _Failed as failed:
            return failed.outcome
        found, _ = bracket(tried)
        if found is not None:
            return self.confirm(confirming_rates(found))
        return self.confirm([tried[0].rate], "no rate kept the bound; measuring the first in full length:")

    def confirm(self, rates: Sequence[float], doing: str = "confirming") -> Outcome:
        """Test in full length at one rate after the other until LoadGen says VALID; what that came to.

        `doing` says what it is for, before the rate.
        """
        plan = self.job.plan
        queries = max(plan.min_query_count, rates[0] * plan.min_duration_ms / 1000)
        if queries < EARLY_STOPPING_MIN_QUERIES[plan.scenario]:
            # LoadGen calls so few INVALID at any rate.
            rates = rates[:1]
        try:
            for rate in rates:
                logger.info("Server: %s %.4g queries/s", doing, rate)
                outcome = self._confirm(rate, is_last=rate == rates[-1])
                if self.probes[-1].is_kept:
                    break
        except _Failed as failed:
            return failed.outcome
        log_dir = Path(self.job.log_dir)
        log_dir.parent.mkdir(parents=True)
        (self.folder / str(len(self.probes))).rename(log_dir)
        return outcome

    def result(self) -> Search:
        """All of it."""
        return Search(tuple(self.probes))

    def _probe(self, rate: float | None) -> Probe:
        full = self.job.plan
        plan = dataclasses.replace(
            full,
            min_duration_ms=_probe_ms(full.min_duration_ms),
            min_query_count=min(full.min_query_count, _PROBE_QUERIES),
        )
        left_s = probes_left(self.probes) * plan.min_duration_ms / 1000 + full.min_duration_ms / 1000
        low, high = bracket(self.probes)
        bounds = [f"{low:.4g} kept the bound"] if low else []
        bounds += [f"{high:.4g} did not"] if high else []
        logger.info(
            "Server: searching the rate, test %d%s%s, %s left",
            len(self.probes) + 1,
            f": {rate:.4g} queries/s" if rate else "",
            f" ({', '.join(bounds)})" if bounds else "",
            about(left_s),
        )
        self._test(plan, rate, probe_of=full, is_confirming=False)
        return self.probes[-1]

    def _confirm(self, rate: float, *, is_last: bool) -> Outcome:
        full = self.job.plan
        return self._test(full, rate, probe_of=None if is_last else full, is_confirming=True)

    def _test(self, plan: Plan, rate: float | None, *, probe_of: Plan | None, is_confirming: bool) -> Outcome:
        """Make one test, at the worker's own choice of a rate if there is none, and note what came of it."""
        log_dir = self.folder / str(len(self.probes) + 1)
        job = dataclasses.replace(
            self.job,
            plan=plan if rate is None else dataclasses.replace(plan, target_qps=rate),
            has_hint=rate is not None,
            segment=f"{self.job.segment}-{log_dir.name}",
            log_dir=str(log_dir),
            outcome=str(log_dir / Path(self.job.outcome).name),
            probe_of=probe_of,
        )
        outcome = self.run(job)
        if outcome.error or outcome.failures.requests or outcome.plan is None:
            raise _Failed(outcome)
        probe = _probe_of(outcome, outcome.plan, self.job.plan, log_dir, is_confirming=is_confirming)
        logger.info(
            "Server: %.4g queries/s: p99 %.2f ms, %s%s",
            *(probe.rate, probe.p99_ms),
            _WORDS[is_confirming, probe.is_kept],
            " (cut short)" if probe.is_cut else "",
        )
        self.probes.append(probe)
        return outcome


def _probe_of(outcome: Outcome, plan: Plan, full: Plan, log_dir: Path, *, is_confirming: bool) -> Probe:
    """What LoadGen found; of a test that was cut short, what is known of it."""
    rate = plan.target_qps
    if outcome.cut_p99_ns:
        return Probe(rate, outcome.cut_p99_ns / 1e6, is_kept=False, is_cut=True, is_confirming=is_confirming)
    log = logs.read_detail(log_dir)
    is_kept = verdict.is_valid(log)
    if not is_confirming:
        most = share_over(dataclasses.replace(full, target_qps=rate)) * (
            log.number("result_query_count") or 0
        )
        is_kept = (log.number("result_overlatency_query_count") or 0) <= most and not log.errors
    return Probe(rate, figures.percentile_ms(log, 99) or 0.0, is_kept, is_confirming=is_confirming)

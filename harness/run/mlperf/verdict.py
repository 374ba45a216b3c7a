"""LoadGen's judgement in plain words: which limit failed, by how much, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.run.mlperf import figures
from harness.run.mlperf.early_stopping import most_over_in
from harness.run.mlperf.logs import DetailLog
from harness.run.mlperf.plan import PERCENTILE, Plan
from harness.run.mlperf.rounds import EARLY_STOPPING_MIN_QUERIES, Scenario


@dataclass(frozen=True)
class Metric:
    """The figure that MLPerf ranks a scenario by."""

    name: str
    value: float
    unit: str


_KEEPS_UP = 0.9
"""Share of the offered rate below which a server does not keep up, however long it may take."""


_WAITED = 2.0
"""From so many times the fastest latency on, a median has waited for other queries."""


def metric(log: DetailLog, scenario: Scenario) -> Metric | None:
    """The official figure; None where LoadGen could not give it (too few queries to estimate it)."""
    figure = figures.METRIC[scenario]
    value = figure.of(log)
    # LoadGen writes 0 for an early-stopping estimate that it could not make.
    return Metric(figure.name, value, figure.unit) if value else None


_PEAK_FOUND = "FindPeakPerformance: Found peak performance field: "


def peak(log: DetailLog) -> float | None:
    """Queries per second that LoadGen's search found; None where it found none, or logged an error."""
    found = [text.removeprefix(_PEAK_FOUND) for text in log.messages if text.startswith(_PEAK_FOUND)]
    return float(found[-1]) if found and not log.errors else None


def error_reasons(log: DetailLog) -> list[str]:
    """Errors that LoadGen logged, each of which makes any test invalid."""
    return [f"LoadGen logged an error: {error}" for error in log.errors]


def peak_reasons(log: DetailLog) -> list[str]:
    """Why a search failed; empty for one that did not, which a test at its rate has to confirm.

    LoadGen calls it INVALID even where it succeeds: it leaves early stopping out.
    """
    if peak(log):
        return []
    rate = log.number("effective_target_qps") or 0
    advice = _advised(log, f"start it lower than --qps {rate:.4g}")
    return [f"the search found no rate that keeps the bound: {advice}", *error_reasons(log)]


def is_valid(log: DetailLog) -> bool:
    """Whether LoadGen calls the run VALID and logged no error (which the submission checker rejects)."""
    return log.values.get("result_validity") == "VALID" and not log.errors


def reasons(log: DetailLog, scenario: Scenario) -> list[str]:
    """Why a run is INVALID, a sentence each; empty for a valid one."""
    found = []
    if log.values.get("result_min_duration_met") is False:
        found.append(_too_short(log, scenario))
    if log.values.get("result_min_queries_met") is False:
        wanted = log.number("effective_min_query_count") or 0
        found.append(
            f"only {log.number('result_query_count') or 0:.0f} of at least {wanted:.0f} queries were made: "
            "let it run longer (--time)"
        )
    if log.values.get("result_perf_constraints_met") is False and scenario == Scenario.SERVER:
        found.append(_over_bound(log))
    elif log.values.get("early_stopping_met") is False:
        found.append(_early_stopping(log, scenario))
    found += error_reasons(log)
    if not found and not is_valid(log):
        found.append(str(log.values.get("result_invalid_reason", "LoadGen gave no reason")))
    return found


def _too_short(log: DetailLog, scenario: Scenario) -> str:
    wanted = (log.number("effective_min_duration_ms") or 0) / 1e3
    if scenario == Scenario.OFFLINE:
        ran = (log.number("result_max_latency_ns") or 0) / 1e9
        rate = figures.THROUGHPUT.of(log) or 0
        return (
            f"it ran {ran:.1f} s of at least {wanted:.1f} s, since more was done per second than expected: "
            f"set --qps {rate * 1.1:.0f}"
        )
    return f"it ended before {wanted:.1f} s had passed: lower the expected latency, or raise --qps"


def _over_bound(log: DetailLog) -> str:
    bound = (log.number("effective_target_latency_ns") or 0) / 1e6
    tail = figures.percentile_ms(log, 99) or 0.0
    over = log.number("result_overlatency_query_count") or 0
    count = log.number("result_query_count") or 1
    offered = log.number("effective_target_qps") or 0
    completed = figures.COMPLETED.of(log) or offered
    advice = f"lower --qps below {min(offered, completed):.1f}"
    if completed < _KEEPS_UP * offered:
        advice += f", which is all that was answered a second of the {offered:.1f} asked"
    return (
        f"p99 latency is {tail:.2f} ms, bound {bound:.2f} ms ({over:.0f} of {count:.0f} queries over it, "
        f"1 % allowed): {_advised(log, advice)}"
    )


def cut_short(
    plan: Plan, percentiles_s: Mapping[float, float], *, ended_s: float, fastest_ms: float, over: int
) -> str:
    """Why a Server test was ended early: what was measured until then, in a sentence.

    Args:
        plan: of the test.
        percentiles_s: latencies that were measured, by percentile.
        ended_s: after how long it was ended.
        fastest_ms: the shortest latency.
        over: queries that were over the bound.
    """
    bound_ms, median_ms = plan.server_target_latency_ns / 1e6, percentiles_s[50.0] * 1e3
    advice = _advice(f"lower --qps {plan.target_qps:.4g}", median_ms, fastest_ms, bound_ms)
    return (
        f"ended early after {ended_s:.1f} of {plan.min_duration_ms / 1000:g} s, since it could not be VALID "
        f"any more: {over} queries were over the bound of {bound_ms:.2f} ms, at most {most_over_in(plan)} of "
        f"the whole test may be; p99 was {percentiles_s[99.0] * 1e3:.2f} ms until then: {advice}, or see all "
        "of it with --no-early-end"
    )


def _advised(log: DetailLog, lower: str) -> str:
    """As `_advice`, of a finished test."""
    bound_ms = (log.number("effective_target_latency_ns") or 0) / 1e6
    fastest_ms = (log.number("result_min_latency_ns") or 0) / 1e6
    return _advice(lower, figures.percentile_ms(log, 50) or 0.0, fastest_ms, bound_ms)


def _advice(lower: str, median_ms: float, fastest_ms: float, bound_ms: float) -> str:
    """What to do where the bound was broken: `lower` the rate, unless the median alone breaks it.

    Where most queries waited for others, even the fastest may have been longer in a batch than it is alone.
    """
    if median_ms <= bound_ms or (fastest_ms <= bound_ms and median_ms >= _WAITED * fastest_ms):
        return lower
    relax = "relax the bound with --max-latency"
    if median_ms >= _WAITED * fastest_ms:
        return f"{lower}; if a query alone takes as long as the fastest here, {fastest_ms:.2f} ms, {relax}"
    return (
        f"the median alone is {median_ms:.2f} ms, which a lower rate does not help: {relax}, or have the "
        "model served faster (--threads, --platform)"
    )


def _early_stopping(log: DetailLog, scenario: Scenario) -> str:
    count = log.number("result_query_count") or 0
    needed = EARLY_STOPPING_MIN_QUERIES[scenario]
    share = PERCENTILE.get(scenario, 0.99)
    if count < needed:
        return (
            f"{figures.so_many(count, 'query', 'queries')} too few to be sure of a {share:.0%} percentile, "
            f"at least {needed} are needed: let it run longer (--time) or raise --count"
        )
    over = log.number("result_overlatency_query_count")
    detail = f" ({over:.0f} of {count:.0f} queries over it)" if over is not None else ""
    return (
        f"{count:.0f} queries do not show with 99 % confidence that {share:.0%} keep the bound{detail}: "
        "let it run longer (--time), or lower --qps"
    )

"""Whether two runs differ by more than each differs from itself.

A run is cut into `PARTS` equal parts, in the order of its queries (Offline: of its time), and the figure that
decides in its scenario is taken from each. The 95 % interval of their mean, by Student's t, is the run's
noise. Long parts, rather than single queries, since neighbouring queries suffer from the same disturbance.
Two runs differ where their ratio is beyond both intervals together. What changes from one run to the next
(other load, the processor's temperature) no single run shows: for that, each has to be repeated.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.report.charts.latency import Latencies
from harness.run.mlperf.figures import so_many
from harness.run.mlperf.plan import PERCENTILE, Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import RateOrigin
from harness.run.worker import timeline

PARTS = 8
_STUDENT_T = 2.365
"""97.5 % quantile with PARTS - 1 degrees of freedom."""
_SEARCH_NOISE = 0.035
"""Of a rate that was found: two searches on a quiet machine end within 5 % of each other."""
_REQUESTS_PER_PART = 10
_MANY_TIMES = 3.0
"""A ratio from which on it is easier to read than a percentage."""
_BEYOND_PERCENTILE = 2
"""Fewest queries of a part above the percentile that is taken from it."""


@dataclass(frozen=True)
class Deciding:
    """The figure that two runs of a scenario are told apart by, LoadGen's own, and how sure it is."""

    name: str
    value: float
    is_latency: bool
    noise: float | None
    """Half the width of its 95 % interval, as a share of it; None where the run cannot tell."""
    why_unknown: str = ""


def deciding(run: RecordedRun) -> Deciding | None:
    """The figure of a run, with its noise; None where it has no such figure.

    For Server it is the latency: the rate is what LoadGen offers, as long as the server keeps up.
    """
    share = PERCENTILE.get(run.scenario)
    if run.mode != Mode.PERFORMANCE:
        return None
    value = run.result.percentiles_ms.get(share * 100) if share else run.samples_per_s
    if value is None:
        return None
    name = f"p{share * 100:g} latency" if share else "throughput"
    parts, why = _parts(run, share)
    if parts is None:
        return Deciding(name, value, share is not None, None, why)
    noise = _STUDENT_T * float(parts.std(ddof=1)) / math.sqrt(PARTS) / float(parts.mean())
    return Deciding(name, value, share is not None, noise)


def found_rate(run: RecordedRun) -> Deciding | None:
    """The rate that a search found and confirmed; None of a run without."""
    metric = run.result.metric
    if run.result.rate_origin != RateOrigin.FOUND or metric is None:
        return None
    return Deciding("rate found", metric.value, is_latency=False, noise=_SEARCH_NOISE)


def _parts(run: RecordedRun, share: float | None) -> tuple[npt.NDArray[np.float64] | None, str]:
    """The figure of each part; or None, and why."""
    recorded = run.recorded
    if recorded is None:
        return None, "it left no record of its requests"
    if share is None:
        needed, made = PARTS * _REQUESTS_PER_PART, len(recorded.samples)
        if made < needed:
            return None, f"{so_many(made, 'request', 'requests')} too few to tell, {needed} are needed"
        counts, _ = np.histogram(recorded.completed_us, PARTS, weights=recorded.samples.astype(np.float64))
        return (counts, "") if counts.all() else (None, "nothing was answered for an eighth of its time")
    latencies, weights = timeline.query_latencies_us(recorded, run.scenario)
    needed, made = PARTS * round(_BEYOND_PERCENTILE / (1 - share)), len(latencies)
    if made < needed:
        few = so_many(made, "query", "queries")
        return None, f"{few} too few to tell a p{share * 100:g} apart, {needed} are needed"
    pieces = zip(np.array_split(latencies, PARTS), np.array_split(weights, PARTS), strict=True)
    return np.array([Latencies.of(*piece).at(share) for piece in pieces]), ""


def conclusion(first: Deciding, other: Deciding) -> str:
    """What the difference of two figures means, in a sentence without an end."""
    ratio = other.value / first.value
    faster = ratio < 1 if first.is_latency else ratio > 1
    change = f"{first.name} {abs(ratio - 1):.1%} {'lower' if ratio < 1 else 'higher'}"
    if ratio >= _MANY_TIMES:
        change = f"{first.name} {ratio:.1f} times as high"
    for one in (first, other):
        if one.noise is None:
            return f"{change}; too short to tell: {one.why_unknown}"
    noise = math.hypot(first.noise or 0.0, other.noise or 0.0)
    if abs(math.log(ratio)) <= noise:
        return f"{change}: within the noise of \N{PLUS-MINUS SIGN}{noise:.1%}"
    return f"{change}: {'better' if faster else 'worse'}, beyond the noise of \N{PLUS-MINUS SIGN}{noise:.1%}"


def may_be_ranked(first: RecordedRun, other: RecordedRun) -> bool:
    """Whether the metrics of two runs measure the same thing."""
    ours, theirs = first.result.metric, other.result.metric
    if not ours or not theirs or first.scenario != other.scenario:
        return False
    if len({first.result.rate_origin, other.result.rate_origin} - {None}) > 1:
        return False
    return (ours.name, ours.unit) == (theirs.name, theirs.unit)


def speed(first: RecordedRun, other: RecordedRun) -> float | None:
    """How many times as fast by MLPerf's metric; None where that cannot be said."""
    if not may_be_ranked(first, other) or not (first.result.is_valid and other.result.is_valid):
        return None
    ours, theirs = first.result.metric, other.result.metric
    assert ours
    assert theirs
    ratio = theirs.value / ours.value
    return 1 / ratio if first.scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM) else ratio

"""How sure the figure of a run is, from the run itself.

A run is cut into `PARTS` equal parts, in the order of its queries (Offline: of its time), and the figure
that decides in its scenario is taken from each. The 95 % interval of their mean, by Student's t, is the run's
noise. Long parts, rather than single queries, since neighbouring queries suffer from the same disturbance.
What changes from one run to the next (other load, the processor's temperature) no single run shows: for
that, each has to be repeated. A rate that was found is as sure as the tests of its own search leave it, and
no surer than two searches differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.report.charts.latency import Latencies
from harness.run.mlperf.figures import so_many
from harness.run.mlperf.plan import PERCENTILE, Mode
from harness.run.mlperf.rate_search import Probe, Search
from harness.run.results.recorded_run import RecordedRun
from harness.run.results.result import RateOrigin

PARTS = 8
_STUDENT_T = 2.365
"""97.5 % quantile with PARTS - 1 degrees of freedom."""
SEARCH_NOISE = 0.035
"""Of a rate that was found: two searches on a quiet machine end within 5 % of each other."""
_REQUESTS_PER_PART = 10
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
    noise = SEARCH_NOISE
    if between := left_open(run.tried):
        low, rate, high = between
        noise = max(noise, 1 - low / rate, high / rate - 1)
    return Deciding("rate found", metric.value, is_latency=False, noise=noise)


def left_open(tried: Sequence[Probe]) -> tuple[float, float, float] | None:
    """Three rates: the highest that kept the bound in each test, the one found, the lowest that never did.

    The first is not above the second, the last not below; one that is missing is the second. None where no
    rate was found.
    """
    found = Search(tuple(tried)).found
    if found is None:
        return None
    failed = {one.rate for one in tried if not one.is_kept}
    kept = {one.rate for one in tried if one.is_kept}
    low = max((rate for rate in kept - failed if rate <= found), default=found)
    high = min((rate for rate in failed - kept if rate > found), default=found)
    return low, found, high


def _parts(run: RecordedRun, share: float | None) -> tuple[npt.NDArray[np.float64] | None, str]:
    """The figure of each part; or None, and why."""
    recorded, found = run.recorded, run.latencies_us
    if recorded is None or found is None:
        return None, "it left no record of its requests"
    if share is None:
        needed, made = PARTS * _REQUESTS_PER_PART, len(recorded.samples)
        if made < needed:
            return None, f"{so_many(made, 'request', 'requests')} too few to tell, {needed} are needed"
        counts, _ = np.histogram(recorded.completed_us, PARTS, weights=recorded.samples.astype(np.float64))
        return (counts, "") if counts.all() else (None, "nothing was answered for an eighth of its time")
    latencies, weights = found
    needed, made = PARTS * round(_BEYOND_PERCENTILE / (1 - share)), len(latencies)
    if made < needed:
        few = so_many(made, "query", "queries")
        return None, f"{few} too few to tell a p{share * 100:g} apart, {needed} are needed"
    pieces = zip(np.array_split(latencies, PARTS), np.array_split(weights, PARTS), strict=True)
    return np.array([Latencies.of(*piece).at(share) for piece in pieces]), ""

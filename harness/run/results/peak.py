"""The tests of LoadGen's own search for Server's rate, from what it said in passing and the timeline.

It doubles the rate until the bound is broken, then halves what is between the last two. Of each test it names
the rate; how it ended follows from where the search went on, and its latencies are in the timeline.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.run.mlperf import schedule, verdict
from harness.run.mlperf.logs import DetailLog
from harness.run.mlperf.plan import Plan
from harness.run.mlperf.rate_search import Probe
from harness.run.results import punctuality
from harness.run.worker.timeline import Recorded

_RATE = r"([\d.]+)"
_STEPS = (
    re.compile(rf"FindPeakPerformance: Check validity of the base settings field: {_RATE}"),
    re.compile(rf"FindBoundaries: Checking fields \[{_RATE}, {_RATE}"),
    re.compile(
        rf"FindPeakPerformanceBinarySearch: Testing the mid value of bounds \[{_RATE}, {_RATE}\S* *{_RATE}"
    ),
)
"""Each names the rate that is tried next last."""


def rates(messages: Sequence[str]) -> list[float]:
    """The rates that were tried, in order."""
    found = (match for text in messages for step in _STEPS if (match := step.search(text)))
    return [float(match[match.lastindex or 0]) for match in found]


def probes(log: DetailLog, recorded: Recorded, plan: Plan) -> tuple[Probe, ...]:
    """Each test; none where the timeline is not of just those tests.

    Args:
        log: of the search.
        recorded: all of its requests.
        plan: of the search.
    """
    tried, found = rates(log.messages), verdict.peak(log) or 0.0
    counts = [schedule.query_count(replace(plan, target_qps=rate)) for rate in tried]
    if sum(counts) != len(recorded.issued_us):
        return ()
    starts = np.cumsum([0, *counts])[:-1].tolist()
    parts = [
        np.sort(punctuality.of_part(recorded, start, plan, rate, count))
        for start, rate, count in zip(starts, tried, counts, strict=True)
    ]
    # LoadGen's own pick of a percentile.
    return tuple(
        Probe(rate, float(part[int(len(part) * 0.99)]) / 1e3, is_kept=rate <= found)
        for rate, part in zip(tried, parts, strict=True)
    )

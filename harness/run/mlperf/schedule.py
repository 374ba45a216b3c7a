"""LoadGen's schedule of a Server test, calculated again: when each query is due, and how many there are.

LoadGen takes latencies from it and writes it nowhere. Intervals are exponential (its `ScheduleDistribution`),
drawn from the round's seed as libstdc++ draws them: std::mt19937, two words for each double, the lower one
first.
"""

import numpy as np
import numpy.typing as npt

from harness.run.mlperf.plan import Plan

_WORD = 2.0**32


def due_ns(plan: Plan, count: int) -> npt.NDArray[np.int64]:
    """When each of the first queries is due, after the first one; (count,)."""
    words = np.random.RandomState(plan.schedule_seed % 2**32).randint(0, 2**32, (count, 2), dtype=np.uint32)
    uniform = (words[:, 0] + words[:, 1] * _WORD) / _WORD**2
    # Each interval is cut to whole nanoseconds before they are added.
    intervals_ns = (-np.log(1.0 - uniform) / plan.target_qps * 1e9).astype(np.int64)
    due: npt.NDArray[np.int64] = np.cumsum(intervals_ns) - intervals_ns
    return due


def query_count(plan: Plan) -> int:
    """How many queries LoadGen makes: until both the duration and the number asked for are reached."""
    enough = int(plan.target_qps * plan.min_duration_ms / 1000 * 1.5) + 100
    while (due := due_ns(plan, enough))[-1] < plan.min_duration_ms * 1_000_000:
        enough *= 2
    return max(plan.min_query_count, int(np.searchsorted(due, plan.min_duration_ms * 1_000_000)) + 1)

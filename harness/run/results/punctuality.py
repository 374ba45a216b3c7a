"""How late a Server test's queries were asked, against LoadGen's schedule, and their latencies from it.

The client notes when LoadGen called it, by a clock of its own; LoadGen counts from when it should have
called. The schedule can be calculated again but for its beginning, which is where the most punctual query was
on time.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.run.mlperf import schedule
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.timeline import Recorded

_TOLERANCE, _TOLERANCE_US = 0.02, 100.0
"""How near the mean latency must be to LoadGen's own for the schedule to be believed."""

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Punctuality:
    """Queries in the order in which they were due; (n,) all."""

    due_us: Array
    """After the first one was issued."""
    late_us: Array
    latencies_us: Array
    """From when they were due, as LoadGen's."""


def against_schedule(recorded: Recorded, plan: Plan) -> Punctuality:
    """Compare the queries of a Server test with the schedule of its plan, which is taken to be theirs."""
    order = np.argsort(recorded.issued_us, kind="stable")
    issued_us, completed_us = (
        times[order].astype(np.int64) for times in (recorded.issued_us, recorded.completed_us)
    )
    due_us = schedule.due_ns(plan, len(order)) // 1000
    due_us += (issued_us - due_us).min()
    return Punctuality(due_us, issued_us - due_us, completed_us - due_us)


def of_test(recorded: Recorded | None, plan: Plan | None, mean_us: float | None) -> Punctuality | None:
    """The same where it can be known: None unless the latencies come to LoadGen's mean, in us."""
    if not recorded or not plan or not mean_us:
        return None
    if plan.scenario != Scenario.SERVER or plan.mode != Mode.PERFORMANCE:
        return None
    found = against_schedule(recorded, plan)
    is_theirs = abs(float(found.latencies_us.mean()) - mean_us) <= _TOLERANCE * mean_us + _TOLERANCE_US
    return found if is_theirs else None


def of_part(recorded: Recorded, start: int, plan: Plan, rate: float, count: int) -> Array:
    """Latencies of one test among several, in us: of `count` queries from the `start`-th issued on."""
    order = np.argsort(recorded.issued_us, kind="stable")[start : start + count]
    part = Recorded(recorded.issued_us[order], recorded.completed_us[order], recorded.samples[order])
    return against_schedule(part, replace(plan, target_qps=rate)).latencies_us

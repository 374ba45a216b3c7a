"""A worker's progress on the user's terminal, or in the log."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from harness.machine import progress
from harness.run.mlperf.logs import PeakSearch
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.job import Status, Step

_RATE_OVER_S = 5.0
_PEAK_PRECISION = 0.1
"""Of LoadGen's search, in queries per second: server_find_peak_qps_decimals_of_precision is 1."""


class Rate:
    """Samples per second over the last few seconds of a test."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def update(self, elapsed_s: float, completed: int) -> float:
        """The rate, now that `completed` samples have been answered."""
        self._seen.append((elapsed_s, completed))
        while len(self._seen) > 2 and self._seen[1][0] <= elapsed_s - _RATE_OVER_S:
            self._seen.popleft()
        then_s, then = self._seen[0]
        return (completed - then) / (elapsed_s - then_s) if elapsed_s > then_s else 0.0


def show(
    plan: Plan, statuses: Iterable[Status], search: Callable[[], PeakSearch | None] = lambda: None
) -> None:
    """Show each status in place of the one before, until there are no more.

    Args:
        plan: of the test.
        statuses: of its worker.
        search: where LoadGen's search for a peak is; asked only where there is one.
    """
    rate = Rate()
    with progress.line() as show_line:
        for status in statuses:
            if status.step == Step.TEST:
                samples_per_s = rate.update(status.elapsed_s, status.counts.completed)
                found = search() if plan.mode == Mode.FIND_PEAK else None
                show_line(describe_test(plan, status, samples_per_s, found), share_done(plan, status))
            else:
                show_line(*_step(plan, status))


def with_start(statuses: Iterable[Status], begins: Callable[[float], None]) -> Iterator[Status]:
    """The same statuses; `begins` is called at the first one of the test, with how long that takes, in s."""
    has_begun = False
    for status in statuses:
        if status.step == Step.TEST and not has_begun:
            has_begun = True
            begins(status.elapsed_s)
        yield status


def _step(plan: Plan, status: Status) -> tuple[str, float | None]:
    total, completed = status.counts.total, status.counts.completed
    if total is None:
        return f"{plan.scenario}: {status.step}, {status.elapsed_s:.0f} s", None
    return f"{plan.scenario}: {status.step}, {completed} of {total}", completed / total


def describe_test(plan: Plan, status: Status, samples_per_s: float, search: PeakSearch | None = None) -> str:
    """`Server: 96%, 120 samples, 4 in flight, 48.1/s, 0:07 left`; `120 of 124 samples` where known."""
    counts = status.counts
    left_s, done = seconds_left(plan, status), share_done(plan, status)
    left = "" if left_s is None else f", {_clock(left_s)} left"
    answered = f"{counts.completed} samples"
    if search:
        answered = f"{_describe_search(search)}, {answered}"
        left = _left_of(plan, search)
    elif counts.total:
        answered = f"{counts.completed} of {counts.total} samples"
    elif done is not None:
        # What of its duration or its queries is over; how many samples it will have, nobody knows.
        answered = f"{done:.0%}, {answered}"
    return f"{plan.scenario}: {answered}, {counts.in_flight} in flight, {samples_per_s:.1f}/s{left}"


def _describe_search(search: PeakSearch) -> str:
    bounds = [f"{search.low:.4g} kept the bound"] if search.low else []
    bounds += [f"{search.high:.4g} did not"] if search.high else []
    return f"trying {search.rate:.4g} queries/s" + (f" ({', '.join(bounds)})" if bounds else "")


def _left_of(plan: Plan, search: PeakSearch) -> str:
    """How long LoadGen goes on halving, once it has both bounds, and the test that confirms what it finds.

    Until then nobody knows how many rates it will try: how long each takes.
    """
    one_s = max(plan.min_duration_ms / 1000, plan.min_query_count / search.rate)
    if not (search.low and search.high):
        return f", each rate takes {progress.about(one_s)}"
    tests = max(1, math.ceil(math.log2(max(search.high - search.low, _PEAK_PRECISION) / _PEAK_PRECISION)))
    return f", {progress.about((tests + 1) * one_s)} left"


def seconds_left(plan: Plan, status: Status) -> float | None:
    """How long the test will take from now on at its rate so far; None while that cannot be said.

    LoadGen's search for a peak is several tests, of which nobody knows how many.
    """
    done = share_done(plan, status)
    if done is None or done == 0:
        return None
    return status.elapsed_s * (1 - done) / done


def share_done(plan: Plan, status: Status) -> float | None:
    """How much of a test is over, from 0 to 1; None where that cannot be said.

    Accuracy tests and Offline end with their last sample; others when both the shortest duration and the
    least number of queries are reached. Server's queries come whether or not the server keeps up, and the
    last of them is waited for.
    """
    counts = status.counts
    if plan.mode == Mode.FIND_PEAK:
        return None
    if plan.mode == Mode.ACCURACY or plan.scenario == Scenario.OFFLINE:
        return counts.completed / counts.total if counts.total else None
    queries, wanted = counts.completed / plan.samples_per_query, float(max(plan.min_query_count, 1))
    if plan.scenario == Scenario.SERVER:
        wanted = max(wanted, counts.issued, plan.target_qps * plan.min_duration_ms / 1000)
    return min(
        1.0,
        queries / wanted,
        status.elapsed_s * 1000 / plan.min_duration_ms if plan.min_duration_ms else 1.0,
    )


def _clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

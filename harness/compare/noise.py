"""Whether two runs differ by more than each differs from itself (`harness.report.noise`).

They do where their ratio is beyond both intervals together.
"""

import math

from harness.report.noise import Deciding
from harness.run.mlperf.rounds import Scenario
from harness.run.results.recorded_run import RecordedRun

_MANY_TIMES = 3.0
"""A ratio from which on it is easier to read than a percentage."""


def conclusion(first: Deciding, other: Deciding, disturbed: str = "") -> str:
    """What the difference of two figures means, in a sentence without an end.

    Args:
        first: of the run that others are compared with.
        other: of another run.
        disturbed: what else used the machine, in whichever of the two runs.
    """
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
    if disturbed:
        beyond = f"beyond the noise of \N{PLUS-MINUS SIGN}{noise:.1%}"
        return f"{change}: {beyond}, but not to be called a difference, since {disturbed}"
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

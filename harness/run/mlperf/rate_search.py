"""The search for the highest Server rate that keeps the bound: which rate to try after those that were tried.

Rates are rungs of one ladder, so that the same machine comes to the same rate wherever its search begins. The
search goes up (or down) in growing steps until one rate kept the bound and a higher one did not, halves what
is between them down to neighbours, and doubts the upper of the two twice: a moment's disturbance, which can
only fail a rate, must not be its ceiling.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RUNG = 1.02
"""Each rung's rate over that of the one below."""
_FIRST_STEP = 8
_LONGEST_STEP = 32
"""Upwards, in rungs: 1.9 times the rate."""
_MOST_FAILED = 5
"""Rates tried in vain, the last a tenth of the first, after which none is expected to keep the bound."""
_ALONE = 0.05
"""Queries that come within one bound's time: with fewer, a query that was late did not wait for others."""
_MOST_PROBES = 20
_USUAL_PROBES = 11
_TRIES = 3
"""Of the lowest rate that failed. A short test allows so few late queries that one pause of the machine fails
it; at one pause in three tests, one search in 27 takes that for the limit instead of one in nine."""
_DESCENT = (0, 2, 4, 8, 16, 32, 64)
"""By how many rungs each confirming test is below the rate found; the last at 0.28 of it."""


@dataclass(frozen=True)
class Probe:
    """One LoadGen test of a search."""

    rate: float
    """Queries per second that were offered."""
    p99_ms: float
    """LoadGen's; of a test that was cut short, of the queries answered until then."""
    is_kept: bool
    """Whether so few queries were over the bound that a test of full length is VALID."""
    is_cut: bool = False
    """Ended early, since too many were over it already."""
    is_confirming: bool = False
    """Of the length that was asked for, at a rate found before; `is_kept` is LoadGen's VALID then."""


@dataclass(frozen=True)
class Search:
    """How a rate was found."""

    probes: tuple[Probe, ...]
    """In the order in which they were made."""

    @property
    def found(self) -> float | None:
        """The rate that was confirmed."""
        last = self.probes[-1] if self.probes else None
        return last.rate if last and last.is_confirming and last.is_kept else None


def nearest(rate: float) -> float:
    """The nearest rate of the ladder, in four digits."""
    return _rate(_rung(rate))


def search(probe: Callable[[float | None], Probe], bound_s: float) -> list[Probe]:
    """Probe until the highest rate is known that keeps the bound, or that none does.

    Args:
        probe: tests a rate of the ladder, or of its own choice for None.
        bound_s: of the latency.
    """
    tried = [probe(None)]
    while (rate := next_rate(tried, bound_s)) is not None:
        tried.append(probe(rate))
    return tried


def bracket(tried: Sequence[Probe]) -> tuple[float | None, float | None]:
    """The highest rate that kept the bound, and the lowest above it that did not."""
    low, high = _bracket(tried)
    return (None if low is None else _rate(low)), (None if high is None else _rate(high))


def next_rate(tried: Sequence[Probe], bound_s: float) -> float | None:
    """The rate to try after others; None where the search is over."""
    is_hopeless = not any(one.is_kept for one in tried) and (
        len(tried) >= _MOST_FAILED or tried[-1].rate * bound_s < _ALONE
    )
    rung = None if is_hopeless or len(tried) >= _MOST_PROBES else _next_rung(tried)
    return None if rung is None else _rate(rung)


def probes_left(tried: Sequence[Probe]) -> int:
    """How many more tests there are likely to be, confirming ones aside."""
    low, high = _bracket(tried)
    if low is None or high is None:
        return max(_USUAL_PROBES - len(tried), _USUAL_PROBES // 2)
    # Halved down to neighbours, of which the upper is tried again.
    times = sum(_rung(one.rate) == high for one in tried) if high - low == 1 else 1
    return math.ceil(math.log2(high - low)) + _TRIES - times


def confirming_rates(found: float) -> list[float]:
    """The rate found, and lower ones for where disturbances fail it, each a few per cent more below."""
    return [found, *(nearest(found / _RUNG**rungs) for rungs in _DESCENT[1:])]


def _next_rung(tried: Sequence[Probe]) -> int | None:
    low, high = _bracket(tried)
    kept = sorted({_rung(one.rate) for one in tried if one.is_kept})
    failed = sorted({_rung(one.rate) for one in tried if not one.is_kept})
    if low is None:
        step = 2 * (failed[1] - failed[0]) if len(failed) > 1 else _FIRST_STEP
        return failed[0] - step
    if high is None:
        step = 2 * (kept[-1] - kept[-2]) if len(kept) > 1 else _FIRST_STEP
        return low + min(step, _LONGEST_STEP)
    if high - low > 1:
        return (low + high) // 2
    times = sum(_rung(one.rate) == high for one in tried)
    return high if times < _TRIES else None


def _bracket(tried: Sequence[Probe]) -> tuple[int | None, int | None]:
    """As rungs. A rate that failed below one that kept the bound was disturbed."""
    low = max((_rung(one.rate) for one in tried if one.is_kept), default=None)
    failed = (_rung(one.rate) for one in tried if not one.is_kept)
    return low, min((rung for rung in failed if low is None or rung > low), default=None)


def _rung(rate: float) -> int:
    return round(math.log(rate, _RUNG))


def _rate(rung: int) -> float:
    return float(f"{_RUNG**rung:.4g}")

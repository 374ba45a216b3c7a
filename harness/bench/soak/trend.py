"""Whether a figure stays where it is: its slope, and the most that it may come to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST_POINTS = 300
"""The slope is of all pairs of points; more points tell no more."""
_ENDS = 0.1
"""Share of the readings that the first and the last value are medians of."""


@dataclass(frozen=True)
class Trend:
    """One figure over time."""

    name: str
    first: float
    last: float
    per_hour: float
    """The median of the slopes between all pairs of readings, which a few odd ones do not change."""
    growth: float
    """What that comes to from the first reading to the last."""
    allowed: float

    @property
    def is_flat(self) -> bool:
        """Falling is flat, too."""
        return self.growth <= self.allowed


def trend(name: str, at_s: Sequence[float], values: Sequence[float], allowed: float) -> Trend:
    """Of readings in the order of time, two at least.

    Args:
        name: what the figure is.
        at_s: when it was read.
        values: what it was.
        allowed: most growth over all readings that is still flat.
    """
    chosen = np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).astype(int))
    times, found = np.asarray(at_s)[chosen], np.asarray(values, np.float64)[chosen]
    earlier, later = np.triu_indices(len(chosen), k=1)
    slope = float(np.median((found[later] - found[earlier]) / (times[later] - times[earlier])))
    ends = max(1, int(len(values) * _ENDS))
    return Trend(
        name,
        first=float(np.median(values[:ends])),
        last=float(np.median(values[-ends:])),
        per_hour=slope * 3600,
        growth=slope * (at_s[-1] - at_s[0]),
        allowed=allowed,
    )

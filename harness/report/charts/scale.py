"""From figures to positions: linear and logarithmic axes, their ticks, and how a figure is written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_TINY = 1e-9


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `start`..`end` pixels (either may be the larger)."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Position of a figure; beyond the ends, that of the end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.0
        return self.start + share * (self.end - self.start)

    def edges(self, count: int) -> npt.NDArray[np.float64]:
        """Figures that cut the range into spans as wide as each other on the page; (count + 1,)."""
        space = np.geomspace if self.is_log else np.linspace
        return np.asarray(space(self.low, self.high, count + 1), np.float64)

    def ticks(self, count: int = 5) -> list[float]:
        """Round figures within the range, about so many."""
        return log_ticks(self.low, self.high, count) if self.is_log else ticks(self.low, self.high, count)


def nice_step(span: float, count: int) -> float:
    """The round figure nearest above `span / count`: 1, 2, 2.5 or 5 times a power of ten."""
    rough = max(span, _TINY) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in _NICE if factor * power >= rough * (1 - _TINY))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of a round step from `low` to `high`, both included."""
    step = nice_step(high - low, count)
    first = math.ceil(low / step - _TINY)
    last = math.floor(high / step + _TINY)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Powers of ten from `low` to `high`, with 2 and 5 times these (or round steps) where they are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        within = [value for value in values if low * (1 - _TINY) <= value <= high * (1 + _TINY)]
        if len(within) <= count + 1:
            found = within
    return found if len(found) > 1 else ticks(low, high, count)


def nice_end(high: float, count: int = 4) -> float:
    """The first round tick at or above a figure, for an axis that begins at zero."""
    step = nice_step(high, count)
    return math.ceil(high / step - _TINY) * step


def number(value: float) -> str:
    """A figure with three or four digits that mean something: 0.0421, 3.14, 48.7, 1,234."""
    size = abs(value)
    if size >= 999.5:
        return f"{value:,.0f}"
    decimals = 1 if size >= 99.95 else 2 if size >= 0.995 else 3
    if 0 < size < 0.0995:
        decimals = 4
    return f"{value:.{decimals}f}"


def tick_labels(values: Sequence[float]) -> list[str]:
    """Figures along an axis, each as short as it can be; at a common precision unless logarithmic."""
    return [f"{round(value, 9):,.10g}" if abs(value) < 1e9 else f"{value:.3g}" for value in values]

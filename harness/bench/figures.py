"""The arithmetic of a comparison: medians of rounds, and ratios within them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What a row of a table is in."""

    SAMPLES_PER_S = "samples/s"
    QUERIES_PER_S = "queries/s"
    MS = "ms"
    CLIENT_US = "us of client CPU"

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self in (Unit.SAMPLES_PER_S, Unit.QUERIES_PER_S)


def speed_ratio(ours: Sequence[float], others: Sequence[float], unit: Unit) -> float | None:
    """How many times as fast ours is: the median over rounds of each round's own ratio.

    A round's paths ran right after one another, so that what slows the machine for a while cancels out.

    Args:
        ours: a figure per round.
        others: the other path's, of the same rounds; empty where that cannot do this.
        unit: of the figures; where less is better, the ratio is the other way round.
    """
    if not others:
        return None
    pairs = zip(ours, others, strict=True)
    return statistics.median(a / b if unit.is_rate else b / a for a, b in pairs)


@dataclass(frozen=True)
class Row:
    """One figure of all paths, by round."""

    name: str
    unit: Unit
    ours: tuple[float, ...]
    plain: tuple[float, ...]
    bare: tuple[float, ...] = ()

    @property
    def ratio_to_bare(self) -> float | None:
        """1 is the limit."""
        return speed_ratio(self.ours, self.bare, self.unit)

    @property
    def ratio_to_plain(self) -> float | None:
        """Above 1, ours is faster."""
        return speed_ratio(self.ours, self.plain, self.unit)

    @property
    def over_bare(self) -> float | None:
        """Median over rounds of what ours takes, or makes, more than bare."""
        if not self.bare:
            return None
        return statistics.median(a - b for a, b in zip(self.ours, self.bare, strict=True))


def median(values: Sequence[float]) -> float | None:
    """None of none."""
    return statistics.median(values) if values else None

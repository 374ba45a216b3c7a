"""The arithmetic of a comparison: medians of rounds, and ratios within them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.models.platforms import Platform


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
    grpc: tuple[float, ...] = ()
    """Ours, over gRPC's library in place of connections of our own."""

    @property
    def ratio_to_bare(self) -> float | None:
        """1 is the limit."""
        return speed_ratio(self.ours, self.bare, self.unit)

    @property
    def ratio_to_grpc(self) -> float | None:
        """Above 1, our own connections are faster."""
        return speed_ratio(self.ours, self.grpc, self.unit)

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


@dataclass(frozen=True)
class Target:
    """A bound on one figure, and what was measured."""

    name: str
    bound: float
    is_least: bool
    """Whether the figure must be at least, rather than at most, the bound."""
    unit: str
    measured: float

    @property
    def is_met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.bound if self.is_least else self.measured <= self.bound

    def __str__(self) -> str:
        """A line for the report."""
        sign = ">=" if self.is_least else "<="
        word = "met" if self.is_met else "MISSED"
        return f"{word}: {self.name} {self.measured:.4g}{self.unit}, wanted {sign} {self.bound:g}{self.unit}"


OFFLINE_OF_BARE: Mapping[tuple[str, Platform], float] = {
    ("resnet50", Platform.ONNXRUNTIME): 0.97,
    ("mobilenet", Platform.ONNXRUNTIME): 0.92,
    ("ssd-resnet34", Platform.ONNXRUNTIME): 0.95,
}
SINGLE_STREAM_OVER_BARE_MS: Mapping[tuple[str, Platform], float] = {
    ("mobilenet", Platform.ONNXRUNTIME): 0.7,
}
SERVER_OF_OFFLINE: Mapping[tuple[str, Platform], float] = {
    ("mobilenet", Platform.ONNXRUNTIME): 0.8,
}
"""Share of our own Offline throughput that Server must carry."""
SERVER_P99_MS = 50.0
"""With this p99, at that rate."""
OF_PLAIN = 1.0
MEMORY_MB = 300.0
NULL_QUERIES_PER_S = {1: 3200.0, 64: 14000.0}
"""By requests in flight."""
NULL_CLIENT_US = {"shm": 80.0, "grpc": 220.0}
"""By transport, of a 3x224x224 float32 sample."""

"""How busy a machine was, and whether that is more than a figure that was measured on it bears."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.machine.host.use import Reading

_MOST_SPANS = 120
"""So that the series of a long test does not fill results.json."""
_OTHERS = 0.05
"""Of all CPUs. Less cannot be told from how differently Linux counts (see `use`), and a quiet machine's own
services take one or two hundredths."""
_STEAL = 0.02
"""Of all CPUs: a host that is not busy takes next to nothing."""
_SLOWER = 0.1
"""By which share the frequency falls; boosts come and go by less."""
_SPANS_TO_COMPARE = 8
"""Fewest from which the first and the last quarter are told apart."""


@dataclass(frozen=True)
class Series:
    """One after the other, each over `span_s`; in CPUs."""

    span_s: float = 0.0
    others: tuple[float, ...] = ()
    """Empty where it is not known whose processes are whose."""
    ours: tuple[float, ...] = ()
    steal: tuple[float, ...] = ()
    mhz: tuple[float, ...] = ()
    """Of the fastest core; empty where it is not told."""


@dataclass(frozen=True)
class Load:
    """Of the machine of the client during a test; means in CPUs, of `cpus`."""

    cpus: int
    """Those that client and server may use."""
    others: float | None
    """Used by processes that are neither the client's nor the server's; None: not known."""
    ours: float
    """Likewise by those that are, as far as they can be seen."""
    steal: float
    """Taken away by the host of a virtual machine."""
    throttled: int | None = None
    """How often a core was slowed down for its heat; None: not told."""
    other_runs: int = 0
    """Of this tool, on the same machine."""
    disturbed_before: int = 0
    """Of a rate that was searched: tests before this one that were not made on a quiet machine."""
    why_unknown: str = ""
    """Why nothing is known of others."""
    series: Series = Series()

    @property
    def disturbances(self) -> tuple[str, ...]:
        """Why figures that were measured meanwhile may not be what the machine does by itself."""
        found = []
        if self.other_runs:
            runs = "another run was" if self.other_runs == 1 else f"{self.other_runs} other runs were"
            found.append(f"{runs} under way on the same machine")
        if self.others is not None and is_busy(self.others, self.cpus):
            found.append(f"other processes used {used_of(self.others, self.cpus)}")
        if self.steal >= _STEAL * self.cpus:
            found.append(f"the host of this virtual machine took {used_of(self.steal, self.cpus)} away")
        if fall := _fall(self.series.mhz):
            found.append("the clock fell from {:.2f} to {:.2f} GHz".format(*fall))
        if self.throttled:
            found.append(f"cores were slowed down for their heat, {self.throttled} times")
        if (tests := self.disturbed_before) > 0:
            plural = "s" if tests > 1 else ""
            found.append(f"{tests} test{plural} of the search before it ran on a busy machine")
        return tuple(found)


def after(last: Load | None, earlier: Sequence[Load | None]) -> Load | None:
    """What is to be known of the last test of a search, and of those that it rests on."""
    disturbed = sum(1 for load in earlier if load and load.disturbances)
    return dataclasses.replace(last, disturbed_before=disturbed) if last else None


def is_busy(others: float, cpus: int) -> bool:
    """Whether so much is enough to disturb a run."""
    return others >= _OTHERS * cpus


def used_of(used: float, cpus: int) -> str:
    """`0.94 of 2 CPUs (47%)`."""
    return f"{used:.2f} of {cpus} CPU{'s' if cpus > 1 else ''} ({used / cpus:.0%})"


def _fall(mhz: Sequence[float]) -> tuple[float, float] | None:
    """The frequencies in GHz of the first and of the last quarter, where the last is clearly lower."""
    quarter = len(mhz) // 4
    if len(mhz) < _SPANS_TO_COMPARE:
        return None
    first, last = (sum(part) / quarter / 1e3 for part in (mhz[:quarter], mhz[-quarter:]))
    return (first, last) if last < first * (1 - _SLOWER) else None


def others_between(first: Reading, last: Reading) -> float:
    """CPUs that others used between two readings."""
    span_s = last.at_s - first.at_s
    return max(0.0, (last.busy_s - first.busy_s) - (last.ours_s - first.ours_s)) / span_s


def load_of(
    readings: Sequence[Reading],
    cpus: int,
    *,
    why_unknown: str = "",
    other_runs: int = 0,
) -> Load | None:
    """What readings tell of the time from the first to the last of them; None of fewer than two."""
    spans = [span for span in pairwise(_thinned(readings)) if span[1].at_s > span[0].at_s]
    if not spans or readings[-1].busy_s == readings[0].busy_s:
        # The second: what looks like Linux and counts nothing.
        return None
    first, last = readings[0], readings[-1]
    span_s = last.at_s - first.at_s
    throttled = None
    if first.throttled is not None and last.throttled is not None:
        throttled = last.throttled - first.throttled
    others = None if why_unknown else round(others_between(first, last), 3)
    return Load(
        cpus=cpus,
        others=others,
        ours=_rate(first.ours_s, last.ours_s, span_s),
        steal=_rate(first.steal_s, last.steal_s, span_s),
        throttled=throttled,
        other_runs=other_runs,
        why_unknown=why_unknown,
        series=Series(
            span_s=round(span_s / len(spans), 3),
            others=() if why_unknown else tuple(round(others_between(*span), 3) for span in spans),
            ours=tuple(_rate(a.ours_s, b.ours_s, b.at_s - a.at_s) for a, b in spans),
            steal=tuple(_rate(a.steal_s, b.steal_s, b.at_s - a.at_s) for a, b in spans),
            mhz=tuple(round(b.mhz, 1) for _, b in spans) if all(b.mhz for _, b in spans) else (),
        ),
    )


def _rate(before_s: float, after_s: float, span_s: float) -> float:
    # What a child had used is lost where nobody waited for it.
    return round(max(0.0, after_s - before_s) / span_s, 3)


def _thinned(readings: Sequence[Reading]) -> Sequence[Reading]:
    """At most so many, evenly, with the first and the last."""
    step = -(-(len(readings) - 1) // _MOST_SPANS) or 1
    return [*readings[:-1:step], *readings[-1:]]

"""The rate of a run over its time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.scale import Scale, nice_end, number
from harness.run.results.batches import answered_together

_MOST_BINS = 60
_REQUESTS_PER_BIN = 8
"""Fewer would show the chance of each bin rather than the rate."""


@dataclass(frozen=True)
class Rates:
    """Samples per second in equal spans of a run; (n,)."""

    per_s: npt.NDArray[np.float64]
    span_s: float


def rates(completed_us: npt.NDArray[Any], samples: npt.NDArray[Any], bins: int | None = None) -> Rates:
    """The samples answered in equal spans, as many as there are enough requests for.

    The requests of a batch are answered at once. Counted at that moment, batches would make a comb of spans
    with one and spans with none; so they count over the time since the batch before.
    """
    times_us, answered = answered_together(completed_us, samples)
    end_us = max(float(times_us[-1]), 1.0)
    count = bins or int(min(_MOST_BINS, max(4, len(completed_us) // _REQUESTS_PER_BIN)))
    until = np.interp(np.linspace(0.0, end_us, count + 1), [0.0, *times_us], [0.0, *np.cumsum(answered)])
    span_s = end_us / count / 1e6
    return Rates(np.diff(until) / span_s, span_s)


@dataclass(frozen=True)
class Instances:
    """Offline: who shares the work, and when they had none; seconds from either end."""

    count: int
    start_up_s: float
    tail_s: float


def draw(
    over_time: Rates, mean: float | None, offered: float | None, instances: Instances | None = None
) -> str:
    """Draw the rate over the run's time.

    Args:
        over_time: of the answers.
        mean: LoadGen's rate for the whole run.
        offered: Server: the rate at which it asks.
        instances: Offline: each one's share is a line too, and idle time is shaded.
    """
    seconds = over_time.span_s * len(over_time.per_s)
    high = max(float(over_time.per_s.max()), mean or 0.0, offered or 0.0)
    across, up = Scale(0.0, seconds, LEFT, RIGHT), Scale(0.0, nice_end(high * 1.05, 3), BOTTOM, TOP)
    outline = axes.stair(over_time.per_s.tolist(), across, up, over_time.span_s)
    parts = [
        *_idle(across, seconds, instances),
        *axes.below(across, "time, s"),
        *axes.beside(up),
        svg.path([(LEFT, BOTTOM), *outline, (RIGHT, BOTTOM)], "area", is_closed=True),
        svg.path(outline, "curve"),
    ]
    words = []
    if mean:
        words.append(f"mean {number(mean)}/s")
        start = RIGHT - width_of(words[-1]) - 22
        parts += [
            svg.line((LEFT, up(mean)), (RIGHT, up(mean)), "mark"),
            svg.line((start, TOP - 10), (start + 16, TOP - 10), "mark"),
            svg.text((RIGHT, TOP - 6), words[-1], "value", anchor="end"),
        ]
    if offered:
        words.append(f"asked {number(offered)}/s")
        parts += [svg.line((LEFT, up(offered)), (RIGHT, up(offered)), "offer"), *_key("offer", words[-1])]
    if instances and instances.count > 1:
        words.append(f"of each of {instances.count} instances")
        each = axes.stair((over_time.per_s / instances.count).tolist(), across, up, over_time.span_s)
        parts += [svg.path(each, "curve faint"), *_key("curve faint", words[-1])]
    lowest = f"lowest {number(float(over_time.per_s.min()))}/s"
    return svg.figure(
        "throughput",
        WIDTH,
        HEIGHT,
        "Samples answered per second, over time",
        f"{'; '.join([*words, lowest])}, in spans of {number(over_time.span_s)} s.",
        parts,
    )


def _key(style: str, words: str) -> list[str]:
    """Above the chart, at the left: what a line is."""
    return [svg.path([(LEFT, TOP - 10), (LEFT + 16, TOP - 10)], style), svg.text((LEFT + 22, TOP - 6), words)]


def _idle(across: Scale, seconds: float, instances: Instances | None) -> list[str]:
    """The time at both ends in which instances had nothing to do."""
    if instances is None:
        return []
    starts = {0.0: instances.start_up_s, seconds - instances.tail_s: instances.tail_s}
    return [
        svg.rect(across(start), TOP, across(start + length) - across(start), BOTTOM - TOP, "track")
        for start, length in starts.items()
        if length > 0
    ]

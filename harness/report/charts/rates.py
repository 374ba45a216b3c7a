"""The rates that a search tried: p99 latency against offered rate, and the bound."""

from collections.abc import Sequence

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from harness.report.charts.labels import Labels
from harness.report.charts.scale import Scale, nice_end, number
from harness.run.mlperf.rate_search import Probe

_MOST_OVER = 3.0
"""Of the bound: what is far over it is a triangle at the upper end, or the rest would be flat."""


def has_beyond(tried: Sequence[Probe], bound_ms: float) -> bool:
    """Whether any test is so far over the bound that it does not fit the chart."""
    return max(one.p99_ms for one in tried) > _end_ms(tried, bound_ms)


def _end_ms(tried: Sequence[Probe], bound_ms: float) -> float:
    """Where the axis of latency ends."""
    high = min(max(bound_ms, *(one.p99_ms for one in tried)), _MOST_OVER * bound_ms)
    return nice_end(high * 1.05, 3)


def probes(tried: Sequence[Probe], bound_ms: float) -> str:
    """Draw each test of a search.

    Args:
        tried: in the order in which they were made.
        bound_ms: of the latency.
    """
    rates = [one.rate for one in tried]
    end_ms = _end_ms(tried, bound_ms)
    margin = 0.08 * (max(rates) - min(rates)) or 0.1 * max(rates)
    across = Scale(max(0.0, min(rates) - margin), max(rates) + margin, LEFT, RIGHT)
    up = Scale(0.0, end_ms, BOTTOM, TOP)
    y, words = up(bound_ms), f"bound {number(bound_ms)} ms"
    parts = [
        *axes.below(across, "offered rate, queries/s"),
        *axes.beside(up),
        svg.text((LEFT - 6, TOP - 10), "ms", anchor="end"),
        svg.line((LEFT, y), (RIGHT, y), "limit"),
    ]
    labels = Labels()
    for one in tried:
        x, top, radius = across(one.rate), up(one.p99_ms), 5.0 if one.is_confirming else 3.6
        style = "dot" if one.is_kept else "dot alarm"
        above = [(x - radius, top + radius), (x, top - radius), (x + radius, top + radius)]
        is_beyond = one.p99_ms > end_ms
        parts.append(
            svg.path(above, style, is_closed=True) if is_beyond else svg.circle((x, top), radius, style)
        )
        labels.take(x - radius, top - radius, x + radius, top + radius)
    labels.follow([(LEFT, y), (RIGHT, y)])
    beside = [((LEFT + 4, y - 5), "start"), ((RIGHT, y - 5), "end"), ((LEFT + 4, y + 14), "start")]
    parts += labels.put(words, "value alarm-text halo", *beside, ((RIGHT, y + 14), "end"))
    if last := next((one for one in reversed(tried) if one.is_confirming and one.is_kept), None):
        x, top = across(last.rate), up(last.p99_ms)
        around = [((x, top - 9), "middle"), ((x - 9, top + 4), "end"), ((x + 9, top + 4), "start")]
        parts += labels.put(f"{number(last.rate)}/s", "value halo", *around, ((x, top + 18), "middle"))
    described = ", ".join(
        f"{number(one.rate)}/s {number(one.p99_ms)} ms {'kept' if one.is_kept else 'not kept'}"
        for one in tried
    )
    return svg.figure(
        "probes", WIDTH, HEIGHT, "p99 latency of each rate that was tried", f"{words}; {described}.", parts
    )

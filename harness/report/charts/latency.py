"""How latencies are spread: a histogram, and the percentile of every latency."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.labels import Labels, Place
from harness.report.charts.scale import Scale, nice_end, nice_step, number

_BINS = 52
_LONG_TAIL = 8.0
"""Largest latency over the median from which on a linear axis would show little but the tail."""
_POINTS = 240
"""Of a curve: more than it has pixels to show."""
_POINTS_PER_LABEL = 14
"""Between the places that a curve's label may have."""
_DOT = 3.2
"""Radius of a dot."""
_LINE = 14.0
"""Height of a line of labels."""
_FAR = (10.0, 16.0, 22.0, 28.0, 36.0, 44.0)
"""From a dot to its words, where nearer ones would cover something."""
_LEVELS = (50.0, 90.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True)
class Latencies:
    """Latencies in ms, ascending, and how much each counts; (n,) both."""

    ms: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]

    @staticmethod
    def of(latencies_us: npt.NDArray[Any], weights: npt.NDArray[np.int64] | None = None) -> "Latencies":
        """Sort what a timeline holds; each counts once unless there are weights."""
        order = np.argsort(latencies_us, kind="stable")
        counts = np.ones(len(order)) if weights is None else weights[order].astype(np.float64)
        return Latencies(latencies_us[order] / 1e3, counts)

    def at(self, share: float) -> float:
        """The smallest latency that at least this share (0 to 1) of the weight does not exceed, in ms."""
        total = np.cumsum(self.weights)
        return float(self.ms[min(int(np.searchsorted(total, share * total[-1])), len(self.ms) - 1)])


def axis(all_latencies: Sequence[Latencies], bound_ms: float | None = None) -> Scale:
    """The common horizontal axis of latency charts, logarithmic where the tail is long.

    It has the bound, too, unless that is far above.
    """
    low = min(float(one.ms[0]) for one in all_latencies)
    high = max(float(one.ms[-1]) for one in all_latencies)
    median = min(one.at(0.5) for one in all_latencies)
    if bound_ms and (bound_ms < 3 * high or bound_ms < _LONG_TAIL * median):
        high = max(high, bound_ms * 1.04)
    high = max(high, 1e-3)
    low = min(low, 0.96 * bound_ms) if bound_ms else low
    if low > 0 and high / max(median, 1e-3) > _LONG_TAIL:
        return Scale(low * 0.95, high * 1.05, LEFT, RIGHT, is_log=True)
    is_cut = low > 0.4 * high
    # Latencies that are all but equal are not blown up to the width of the page.
    step = nice_step(max(high - (low if is_cut else 0.0), 0.01 * high), 5)
    start = min(low, math.floor(low / step) * step) if is_cut else 0.0
    return Scale(start, max(high * 1.01, start + step), LEFT, RIGHT)


def histogram(
    latencies: Latencies,
    across: Scale,
    marks: Mapping[float, float],
    bound_ms: float | None,
    what: str,
    *,
    name: str = "latency-histogram",
    quantity: str = "latency",
) -> str:
    """Draw how many took how long.

    Args:
        latencies: to be counted.
        across: of the latencies, in ms.
        marks: the latency in ms by percentile, each a vertical line.
        bound_ms: what is above is drawn in the colour of alarm.
        what: is counted: queries, or batches.
        name: of the picture within its page.
        quantity: what is along the axis.
    """
    edges = across.edges(_BINS)
    counts, _ = np.histogram(latencies.ms, edges, weights=latencies.weights)
    shares = counts / counts.sum() * 100
    up = Scale(0.0, nice_end(float(shares.max()), 3), BOTTOM, TOP)
    parts = [*axes.below(across, _title(across, quantity)), *axes.beside(up, "%")]
    width = (RIGHT - LEFT) / _BINS
    labels = Labels()
    for at, (lower, share) in enumerate(zip(edges[:-1].tolist(), shares.tolist(), strict=True)):
        if share:
            top = min(up(share), BOTTOM - 0.7)
            style = "bar alarm" if bound_ms and lower >= bound_ms else "bar"
            parts.append(svg.rect(LEFT + at * width + 0.4, top, width - 0.8, BOTTOM - top, style))
            labels.avoid(LEFT + at * width, top, LEFT + (at + 1) * width, BOTTOM)
    parts += _marks(labels, across, marks, bound_ms)
    seen = ", ".join(f"p{level:g} {number(value)} ms" for level, value in marks.items())
    kept = f"; bound {number(bound_ms)} ms" if bound_ms else ""
    return svg.figure(
        name,
        WIDTH,
        HEIGHT,
        f"Histogram of the {quantity} of {what}",
        f"Share of {what} by {quantity}: {seen}{kept}.",
        parts,
    )


def percentiles(
    curves: Sequence[tuple[str, str, Latencies]],
    across: Scale,
    marks: Mapping[float, float],
    bound_ms: float | None,
    what: str,
    *,
    name: str = "latency-percentiles",
) -> str:
    """Draw the share that took at most so long, with as much room for the last percent as for all others.

    Args:
        curves: style, label (or nothing) and latencies of each.
        across: of the latencies, in ms.
        marks: LoadGen's latency in ms by percentile, each a dot with its figure.
        bound_ms: a vertical line.
        what: queries or samples.
        name: of the picture within its page.
    """
    most = max(len(latencies.ms) for _, _, latencies in curves)
    top = min(4.3, max(2.0, math.log10(max(most, 2)) + 0.05))
    up = Scale(0.0, top, BOTTOM, TOP)
    parts = [*axes.below(across, _title(across)), *_levels(up, top)]
    labels = Labels()
    # The figures of both axes.
    labels.take(0.0, TOP - 7, LEFT - 3, BOTTOM + 8)
    labels.take(LEFT, BOTTOM + 4, RIGHT, HEIGHT)
    if bound_ms:
        parts += _bound(labels, across, bound_ms, TOP - 4)
    dots = {
        (across(value), up(_nines(level / 100))): f"{number(value)} ms"
        for level, value in marks.items()
        if _nines(level / 100) <= top
    }
    for x, y in dots:
        labels.take(x - _DOT, y - _DOT, x + _DOT, y + _DOT)
    drawn = [(style, label, _curve(latencies, across, up)) for style, label, latencies in curves]
    for style, _, points in drawn:
        parts.append(svg.path(points, style))
        labels.follow(points)
    for style, label, points in drawn:
        if label:
            # From the upper end downwards.
            places = [((x + 6, y + 4), "start") for x, y in points[::-_POINTS_PER_LABEL]]
            parts += labels.put(label, f"value halo {style.replace('series', 'ink')}", *places)
    for (x, y), words in dots.items():
        parts.append(svg.circle((x, y), _DOT, "dot"))
        parts += labels.put(words, "value halo", *_around(x, y))
    seen = ", ".join(f"{level:g}% within {number(value)} ms" for level, value in marks.items())
    return svg.figure(
        name, WIDTH, HEIGHT, f"Cumulative distribution of the latency of {what}", f"{seen}.", parts
    )


def _around(x: float, y: float) -> list[Place]:
    """Places for the words of a dot on a rising curve; to its lower right and upper left there is nothing."""
    near: list[Place] = [((x + 8, y + 11), "start"), ((x - 8, y - 5), "end"), ((x + 8, y - 5), "start")]
    # Past the line of a bound that is close to the dot, or above what else is there.
    beside = [((x + side * far, y + 4), end) for far in _FAR for side, end in ((1, "start"), (-1, "end"))]
    above = [((x - 8, y - 5 - far), "end") for far in _FAR]
    return [*near, *beside, *above]


def _levels(up: Scale, top: float) -> list[str]:
    """What stands at the left, and its lines."""
    parts = []
    if BOTTOM - up(_nines(0.5)) > _LINE:
        parts.append(svg.text((LEFT - 6, BOTTOM + 4), "0%", anchor="end"))
    for level in _LEVELS:
        if (height := _nines(level / 100)) <= top:
            y = up(height)
            parts += [
                svg.line((LEFT, y), (RIGHT, y), "grid"),
                svg.text((LEFT - 6, y + 4), f"{level:g}%", anchor="end"),
            ]
    return parts


def _title(across: Scale, quantity: str = "latency") -> str:
    return f"{quantity}, ms (logarithmic)" if across.is_log else f"{quantity}, ms"


def _nines(share: float) -> float:
    """0 for none, 1 for 90 %, 2 for 99 %, and so on."""
    return -math.log10(max(1.0 - share, 1e-9))


def _curve(latencies: Latencies, across: Scale, up: Scale) -> list[svg.Point]:
    """Points evenly spaced along the vertical axis; from the last query's percentile on, straight up."""
    total = np.cumsum(latencies.weights)
    heights = np.linspace(0.0, up.high, _POINTS)
    shares = 1.0 - 10.0**-heights
    at = np.minimum(np.searchsorted(total, shares * total[-1]), len(total) - 1)
    return [
        (across(value), up(height))
        for value, height in zip(latencies.ms[at].tolist(), heights.tolist(), strict=True)
    ]


def _marks(labels: Labels, across: Scale, marks: Mapping[float, float], bound_ms: float | None) -> list[str]:
    """Vertical lines with their names above, those that would meet one above the other."""
    parts: list[str] = []
    # The uppermost figure of the vertical axis.
    labels.take(0.0, TOP - 7, LEFT - 6, TOP + 7)
    for level, value in marks.items():
        x, words = across(value), f"p{level:g}"
        middle = min(x, WIDTH - width_of(words) / 2)
        rows = [((middle, TOP - 4 - _LINE * row), "middle") for row in (0, 1)]
        if named := labels.put(words, "value", *rows):
            parts += [svg.line((x, TOP - 1), (x, BOTTOM), "mark"), *named]
            labels.follow([(x, TOP + 2), (x, BOTTOM)])
    if not bound_ms:
        return parts
    # Last, since it may be within the chart, too.
    return parts + _bound(labels, across, bound_ms, TOP - 4, TOP - 4 - _LINE, TOP + 12, TOP + 12 + _LINE)


def _bound(labels: Labels, across: Scale, bound_ms: float, *heights: float) -> list[str]:
    """The line that must not be crossed; an arrow where it is far beyond what happened."""
    words, style = f"bound {bound_ms:.4g} ms", "value alarm-text halo"
    if bound_ms > across.high:
        places = [((RIGHT, y), "end") for y in heights]
        return labels.put(f"{words} \N{RIGHTWARDS ARROW}", style, *places)
    x = across(bound_ms)
    labels.follow([(x, TOP + 2), (x, BOTTOM)])
    is_near_the_end = x + width_of(words) / 2 > WIDTH
    above = [((WIDTH, y), "end") if is_near_the_end else ((x, y), "middle") for y in heights if y < TOP]
    beside = [((x + side, y), end) for y in heights for side, end in ((5, "start"), (-5, "end"))]
    return [
        svg.line((x, TOP - 1), (x, BOTTOM), "limit"),
        *labels.put(words, style, *above, *beside),
    ]

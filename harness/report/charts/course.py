"""How something went over a run's time: its median and the slowest, span by span."""

import numpy as np
import numpy.typing as npt

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.scale import Scale, nice_end, number

_MOST_SPANS = 60
_LONG_TAIL = 8.0
"""The slowest over the usual median from which on a linear axis would show little but the slowest."""
_SECONDS_MS = 10_000.0
"""From here on the axis is in seconds."""
_LEAST = 1e-3
"""A logarithmic axis has no zero."""


def over_time(
    name: str,
    title: str,
    at_s: npt.NDArray[np.float64],
    took_ms: npt.NDArray[np.float64],
    bound_ms: float | None = None,
    *,
    per_span: int = 8,
) -> str:
    """Draw the median and the slowest of each span.

    Args:
        name: of the picture within its page.
        title: what is shown, for those who hear the page.
        at_s: when; (n,), above 0 somewhere, or all is one span.
        took_ms: what is drawn, of each; (n,).
        bound_ms: a horizontal line, where it is not far beyond.
        per_span: fewest in a span, on average.
    """
    unit = "s" if took_ms.max() >= _SECONDS_MS else "ms"
    per_ms = 1e-3 if unit == "s" else 1.0
    middles_s, medians, slowest = _spans(at_s, took_ms * per_ms, per_span)
    across = Scale(0.0, max(float(at_s.max()), 1e-6), LEFT, RIGHT)
    bound = bound_ms * per_ms if bound_ms else None
    up = _upwards(medians, slowest, bound)
    parts = [
        *axes.below(across, "time, s"),
        *axes.beside(up),
        svg.text((LEFT - 6, TOP - 10), unit, anchor="end"),
    ]
    for style, values in (("curve faint", slowest), ("curve", medians)):
        points = [(across(at), up(value)) for at, value in zip(middles_s, values, strict=True)]
        # To both ends, so that a single span is a line too.
        ends = (LEFT, points[0][1]), (RIGHT, points[-1][1])
        parts.append(svg.path([ends[0], *points, ends[1]], style))
    if bound and bound_ms and bound <= up.high:
        # Named in the key: beside the line itself, curves would cross the words.
        parts += [
            svg.line((LEFT, up(bound)), (RIGHT, up(bound)), "limit"),
            svg.line((LEFT, TOP - 10), (LEFT + 16, TOP - 10), "limit"),
            svg.text((LEFT + 22, TOP - 6), f"bound {bound_ms:.4g} ms", "value alarm-text"),
        ]
    parts += _key(("curve", "median"), ("curve faint", "slowest"))
    described = f"median {number(float(np.median(took_ms)))} ms, slowest {number(float(took_ms.max()))} ms"
    return svg.figure(name, WIDTH, HEIGHT, title, f"In all: {described}.", parts)


def _spans(
    at_s: npt.NDArray[np.float64], took_ms: npt.NDArray[np.float64], per_span: int
) -> tuple[list[float], list[float], list[float]]:
    """The middle, the median and the maximum of each of equal spans in which anything was."""
    count = int(min(_MOST_SPANS, max(1, len(at_s) // per_span)))
    end_s = max(float(at_s.max()), 1e-6)
    span = np.minimum((at_s / end_s * count).astype(np.int64), count - 1)
    found = [(number_, took_ms[span == number_]) for number_ in range(count)]
    held = [((at + 0.5) * end_s / count, values) for at, values in found if len(values)]
    return (
        [at for at, _ in held],
        [float(np.median(values)) for _, values in held],
        [float(values.max()) for _, values in held],
    )


def _upwards(medians: list[float], slowest: list[float], bound: float | None) -> Scale:
    """From zero; logarithmic where the slowest are far from the usual, and then down to the bound."""
    high = max(slowest)
    if bound and bound < 3 * high:
        high = max(high, bound)
    usual, low = float(np.median(medians)), max(min(medians), _LEAST)
    low = min(low, bound or low)
    if high > _LONG_TAIL * max(usual, _LEAST):
        return Scale(low * 0.8, high * 1.1, BOTTOM, TOP, is_log=True)
    return Scale(0.0, nice_end(max(high, _LEAST) * 1.05, 3), BOTTOM, TOP)


def _key(*lines: tuple[str, str]) -> list[str]:
    """Above the chart, which line is which; the first one at the right."""
    parts: list[str] = []
    right = RIGHT
    for style, words in lines:
        parts.append(svg.text((right, TOP - 6), words, "label", anchor="end"))
        right -= width_of(words) + 22
        parts.append(svg.path([(right, TOP - 10), (right + 16, TOP - 10)], style))
        right -= 10
    return parts

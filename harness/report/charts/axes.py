"""The frame that the charts share: its size, and its two axes."""

from collections.abc import Sequence

from harness.report.charts import svg
from harness.report.charts.scale import Scale, tick_labels

WIDTH, HEIGHT = 360.0, 216.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 352.0, 26.0, 182.0
"""Of the area that figures are drawn in."""
_CHARACTER = 7.2
"""Width of a character of a label in the widest of the fonts that a page may get, bold."""


def width_of(words: str) -> float:
    """Room that a label takes."""
    return len(words) * _CHARACTER


def below(scale: Scale, title: str) -> list[str]:
    """The horizontal axis: base line, ticks, title."""
    values = scale.ticks(5)
    parts = [svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis")]
    for value, label in zip(values, tick_labels(values), strict=True):
        x = scale(value)
        is_cut = x + width_of(label) / 2 > WIDTH
        parts += [
            svg.line((x, BOTTOM), (x, BOTTOM + 4), "axis"),
            svg.text((x, BOTTOM + 16), label, anchor="end" if is_cut else "middle"),
        ]
    return [*parts, caption(title)]


def beside(scale: Scale, unit: str = "") -> list[str]:
    """The vertical axis: lines at round figures."""
    values = scale.ticks(3)
    parts = []
    for value, label in zip(values, tick_labels(values), strict=True):
        y = scale(value)
        if value > scale.low:
            parts.append(svg.line((LEFT, y), (RIGHT, y), "grid"))
        parts.append(svg.text((LEFT - 6, y + (1 if value == scale.low else 4)), label + unit, anchor="end"))
    return parts


def stair(values: Sequence[float], across: Scale, up: Scale, span: float) -> list[svg.Point]:
    """Values that each hold for a span of the horizontal axis, one after the other."""
    return [(across((at + side) * span), up(value)) for at, value in enumerate(values) for side in (0, 1)]


def caption(title: str) -> str:
    """What the horizontal axis means."""
    return svg.text((RIGHT, HEIGHT - 4), title, "label faint", anchor="end")

"""Words in a chart, none of which covers another."""

from harness.report.charts import svg
from harness.report.charts.axes import WIDTH, width_of

_ASCENT, _DESCENT = 11.0, 3.0
"""Of a line of words, from its base."""
_GAP = 3.0
"""Between words beside each other."""

Place = tuple[svg.Point, str]
"""Where the words' base begins, is in the middle or ends, and which of these (svg.text's `anchor`)."""


class Labels:
    """Puts words where nothing is yet; the first ones have the choice."""

    def __init__(self) -> None:
        self._taken: list[tuple[float, float, float, float]] = []

    def take(self, left: float, top: float, right: float, bottom: float) -> None:
        """Keep an area free of words."""
        self._taken.append((left, top, right, bottom))

    def put(self, words: str, style: str, *places: Place) -> list[str]:
        """Write words at the first of the places that is free; nothing where none is."""
        for (x, y), anchor in places:
            width = width_of(words)
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            area = left - _GAP, y - _ASCENT, left + width + _GAP, y + _DESCENT
            if left >= 0 and left + width <= WIDTH and not any(_meet(area, other) for other in self._taken):
                self._taken.append(area)
                return [svg.text((x, y), words, style, anchor=anchor)]
        return []


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

"""Words in a chart: none covers another, nor a dot, nor a line where there is a choice."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from harness.report.charts import svg
from harness.report.charts.axes import WIDTH, width_of

_ASCENT, _DESCENT = 11.0, 3.0
"""Of a line of words, from its base."""
_GAP = 3.0
"""Between words beside each other."""
_STROKE = 1.5
"""From the middle of a line to where words may begin."""
_STEP = 6.0
"""Between the points of a line that words are kept off; less than words are high."""

Place = tuple[svg.Point, str]
"""Where the words' base begins, is in the middle or ends, and which of these (svg.text's `anchor`)."""
_Area = tuple[float, float, float, float]


class Labels:
    """Puts words where nothing is yet; the first ones have the choice."""

    def __init__(self) -> None:
        self._taken: list[_Area] = []
        self._drawn: list[_Area] = []

    def take(self, left: float, top: float, right: float, bottom: float) -> None:
        """Keep an area free of words."""
        self._taken.append((left, top, right, bottom))

    def avoid(self, left: float, top: float, right: float, bottom: float) -> None:
        """Keep an area free of words, unless these have no other place."""
        self._drawn.append((left, top, right, bottom))

    def follow(self, points: Sequence[svg.Point]) -> None:
        """Keep a line free of words, unless these have no other place."""
        for (x1, y1), (x2, y2) in pairwise(points):
            count = 1 + int(max(abs(x2 - x1), abs(y2 - y1)) / _STEP)
            for x, y in zip(np.linspace(x1, x2, count + 1), np.linspace(y1, y2, count + 1), strict=True):
                self.avoid(float(x) - _STROKE, float(y) - _STROKE, float(x) + _STROKE, float(y) + _STROKE)

    def put(self, words: str, style: str, *places: Place) -> list[str]:
        """Write words at the first of the places that is free; rather over a line than nowhere.

        Nothing where other words or dots have all the places.
        """
        for covered in ((*self._taken, *self._drawn), self._taken):
            for (x, y), anchor in places:
                width = width_of(words)
                left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
                area = left - _GAP, y - _ASCENT, left + width + _GAP, y + _DESCENT
                is_within = left >= 0 and left + width <= WIDTH
                if is_within and not any(_meet(area, other) for other in covered):
                    self._taken.append(area)
                    return [svg.text((x, y), words, style, anchor=anchor)]
        return []


def _meet(one: _Area, other: _Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

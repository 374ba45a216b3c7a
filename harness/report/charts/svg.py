"""The few SVG elements that the charts are made of. Colours are CSS classes, so that themes apply."""

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _attributes(values: dict[str, str | float | None]) -> str:
    return "".join(
        f' {name}="{_number(value) if isinstance(value, float | int) else escape(value)}"'
        for name, value in values.items()
        if value is not None
    )


def line(start: Point, end: Point, style: str) -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = start, end
    return f"<line{_attributes({'class': style, 'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2})}/>"


def rect(left: float, top: float, width: float, height: float, style: str, *, title: str = "") -> str:
    """A rectangle, with a tooltip if there is a title."""
    at: dict[str, str | float | None] = {
        "class": style,
        "x": left,
        "y": top,
        "width": max(0.0, width),
        "height": max(0.0, height),
    }
    return f"<rect{_attributes(at)}>{_title(title)}</rect>" if title else f"<rect{_attributes(at)}/>"


def circle(centre: Point, radius: float, style: str) -> str:
    """A dot."""
    return f"<circle{_attributes({'class': style, 'cx': centre[0], 'cy': centre[1], 'r': radius})}/>"


def path(points: Sequence[Point], style: str, *, is_closed: bool = False) -> str:
    """A line through points."""
    steps = " L".join(f"{_number(x)} {_number(y)}" for x, y in points)
    return f'<path class="{style}" d="M{steps}{" Z" if is_closed else ""}"/>'


def text(at: Point, words: str, style: str = "label", *, anchor: str = "start") -> str:
    """Words; `anchor` is start, middle or end."""
    where = _attributes({"class": style, "x": at[0], "y": at[1], "text-anchor": anchor})
    return f"<text{where}>{escape(words)}</text>"


def figure(name: str, width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """A whole picture, which scales to the width that it is given.

    Args:
        name: of this picture within the page; letters and hyphens.
        width: of the drawing area, in units that are pixels where the page is as wide as it was drawn for.
        height: likewise.
        title: for those who hear the page.
        description: what the picture shows, with its figures.
        parts: elements.
    """
    return (
        f'<svg id="{name}" viewBox="0 0 {_number(width)} {_number(height)}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc" preserveAspectRatio="xMidYMid meet">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>"

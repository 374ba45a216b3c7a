"""What the servers' own metrics said over the time of a run: how busy they were, and who waited."""

from collections.abc import Sequence

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.scale import Scale, nice_end, number
from harness.run.telemetry.record import Course

_MIDDLE = (TOP + BOTTOM) / 2
_GAP = 12.0
_CPU, _GPU, _PENDING = 1, 2, 3
"""Numbers of the colours."""
_Points = list[tuple[float, float]]


def has_course(courses: Sequence[Course]) -> bool:
    """Whether there is enough to draw; that nothing ever waited is nothing, by itself."""
    is_waiting = any(value for one in courses for value in one.pending)
    drawn = [values for one in courses for values in (one.cpu, one.gpu)]
    drawn += [one.pending for one in courses if is_waiting]
    return any(sum(value is not None for value in values) > 1 for values in drawn)


def course(courses: Sequence[Course]) -> str:
    """Draw each server's CPUs and GPUs, and below them the requests that waited; or these alone.

    Args:
        courses: of each server; see `has_course`.
    """
    across = Scale(0.0, max(at for one in courses for at in one.at_s), LEFT, RIGHT)
    waiting = [_points(one.at_s, one.pending) for one in courses]
    most = max((value for points in waiting for _, value in points), default=0.0)
    shares = [
        (name, colour, lines)
        for name, colour, lines in (
            ("CPUs", _CPU, [_points(one.at_s, one.cpu, 100.0) for one in courses]),
            ("GPUs", _GPU, [_points(one.at_s, one.gpu, 100.0) for one in courses]),
        )
        if any(lines)
    ]
    busy = Scale(0.0, 100.0, _MIDDLE - _GAP, TOP)
    above = _MIDDLE + _GAP if shares else TOP
    queue = Scale(0.0, nice_end(max(most, 1.0), 2), BOTTOM, above)
    parts = [*axes.below(across, "time, s"), *axes.beside(queue)]
    if shares:
        parts += axes.beside(busy, "%")
    described: list[str] = []
    left = LEFT
    for name, colour, lines in shares:
        values = [value for points in lines for _, value in points]
        words = f"{name} {sum(values) / len(values):.0f}%"
        parts.append(svg.text((left, TOP - 10), words, f"value ink-{colour}"))
        parts += _drawn(lines, across, busy, colour)
        left += width_of(words) + 14
        described.append(f"{words} busy on average")
    if any(waiting):
        words = f"waiting, up to {number(most)}"
        parts.append(svg.text((RIGHT, above - 10), words, f"value halo ink-{_PENDING}", anchor="end"))
        parts += _drawn(waiting, across, queue, _PENDING)
        described.append(f"up to {number(most)} requests waiting")
    words = f"{'; '.join(described) or 'nothing was told'}."
    return svg.figure(
        *("telemetry", WIDTH, HEIGHT, "The servers' own metrics, over time"),
        f"{words[0].upper()}{words[1:]}",
        parts,
    )


def _points(at_s: Sequence[float], values: Sequence[float | None], times: float = 1.0) -> _Points:
    return [(at, value * times) for at, value in zip(at_s, values, strict=True) if value is not None]


def _drawn(lines: Sequence[_Points], across: Scale, up: Scale, colour: int) -> list[str]:
    """A line for each server."""
    return [
        svg.path([(across(at), up(value)) for at, value in points], f"series-{colour}")
        for points in lines
        if points
    ]

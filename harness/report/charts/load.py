"""How busy the machine was: CPUs used by client and server and by others, and the clock, over time."""

from collections.abc import Sequence

from harness.machine.host.load import Load
from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.scale import Scale, nice_end, number

_KEY = 12.0
"""Width of a colour's sample beside its name."""
_STRIP, _STRIP_HEIGHT = HEIGHT + 14, 40.0
"""Where the clock's own figure begins, below the CPUs'; and its height."""


def over_time(load: Load) -> str:
    """Draw what used the CPUs, one on top of the other, up to all of them; and the clock where it is told."""
    series = load.series
    layers = [("client and server", "fill-1", series.ours)]
    if series.others:
        layers.append(("others", "fill-2", series.others))
    if any(series.steal):
        layers.append(("taken by the host", "fill-3", series.steal))
    end_s = series.span_s * len(series.ours)
    across, up = Scale(0.0, end_s, LEFT, RIGHT), Scale(0.0, float(load.cpus), BOTTOM, TOP)
    parts = [*axes.below(across, "time, s"), *axes.beside(up), *_legend(layers)]
    floor = [0.0] * len(series.ours)
    for _, style, used in layers:
        top = [under + part for under, part in zip(floor, used, strict=True)]
        # Outermost first would hide the others; each is the band between two steps.
        band = axes.stair(top, across, up, series.span_s) + axes.stair(floor, across, up, series.span_s)[::-1]
        parts.append(svg.path(band, style, is_closed=True))
        floor = top
    height = HEIGHT
    words = [f"{name} {number(sum(used) / len(used))} CPUs" for name, _, used in layers]
    if series.mhz:
        parts += _clock(series.mhz, across, series.span_s)
        height = _STRIP + _STRIP_HEIGHT + 8
        words.append(f"clock {min(series.mhz) / 1e3:.2f} to {max(series.mhz) / 1e3:.2f} GHz")
    described = f"On average of {load.cpus} CPUs: {', '.join(words)}."
    return svg.figure("load", WIDTH, height, "Use of the CPUs over time", described, parts)


def _legend(layers: Sequence[tuple[str, str, Sequence[float]]]) -> list[str]:
    parts, x = [], LEFT
    for name, style, _ in layers:
        parts += [svg.rect(x, TOP - 17, _KEY, 8, style), svg.text((x + _KEY + 5, TOP - 9), name)]
        x += _KEY + 12 + width_of(name) * 0.85  # a label is not bold
    return parts


def _clock(mhz: Sequence[float], across: Scale, span_s: float) -> list[str]:
    """The frequency in a strip of its own, from nothing to its highest."""
    top = nice_end(max(mhz) / 1e3, 2)
    up = Scale(0.0, top, _STRIP + _STRIP_HEIGHT, _STRIP)
    return [
        svg.line((LEFT, up(0.0)), (RIGHT, up(0.0)), "axis"),
        svg.line((LEFT, up(top)), (RIGHT, up(top)), "grid"),
        svg.text((LEFT - 6, up(top) + 4), f"{top:g}", anchor="end"),
        svg.text((LEFT - 6, up(0.0) + 1), "0", anchor="end"),
        svg.text((LEFT + 4, up(top) - 4), "clock, GHz"),
        svg.path(axes.stair([one / 1e3 for one in mhz], across, up, span_s), "curve"),
    ]

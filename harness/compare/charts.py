"""The curves of several runs in one picture, each with its letter."""

from collections.abc import Sequence

from harness.report.charts import axes, latency, svg, throughput
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.labels import Labels
from harness.report.charts.latency import Latencies
from harness.report.charts.scale import Scale, nice_end, number
from harness.report.noise import Deciding
from harness.run.worker.timeline import Recorded

_COLOURS = 6
_SPANS = 24
_ROOM = HEIGHT - 40


def series(at: int) -> int:
    """The number of a run's colour."""
    return at % _COLOURS + 1


def bars(figures: Sequence[tuple[int, str, Deciding]]) -> str:
    """Draw the deciding figure of each run: position, letter, figure."""
    unit = "ms" if figures[0][2].is_latency else "samples/s"
    most = max(one.value * (1 + (one.noise or 0.0)) for _, _, one in figures)
    words = {label: f"{number(one.value)} {unit}" for _, label, one in figures}
    left, right = 24.0, RIGHT - 6 - max(map(width_of, words.values()))
    across = Scale(0.0, most, left, right)
    pitch = min(38.0, _ROOM / len(figures))
    height = pitch * 0.5
    parts = []
    for row, (at, label, one) in enumerate(figures):
        y = 16 + row * pitch
        parts += [
            svg.text((left - 8, y + height / 2 + 4), label, "value", anchor="end"),
            svg.rect(left, y, across(one.value) - left, height, f"fill-{series(at)}"),
        ]
        end = across(one.value)
        if one.noise is not None:
            low, end = across(one.value * (1 - one.noise)), across(one.value * (1 + one.noise))
            parts.append(svg.line((low, y + height / 2), (end, y + height / 2), "whisker"))
        parts.append(svg.text((end + 6, y + height / 2 + 4), words[label], "value"))
    described = ", ".join(f"{label} {word}" for label, word in words.items())
    return svg.figure("figures", WIDTH, 16 + len(figures) * pitch, figures[0][2].name, f"{described}.", parts)


def latencies(curves: Sequence[tuple[int, str, Latencies]], what: str) -> str:
    """Draw the percentiles of each run: position, letter, latencies; `what` has them."""
    across = latency.axis([one for _, _, one in curves])
    return latency.percentiles(
        [(f"series-{series(at)}", label, one) for at, label, one in curves], across, {}, None, what
    )


def throughputs(runs: Sequence[tuple[int, str, Recorded]]) -> str:
    """Draw the rate of each run over its time: position, letter, requests."""
    found = [
        (at, label, throughput.rates(recorded.completed_us, recorded.samples, _SPANS))
        for at, label, recorded in runs
    ]
    seconds = max(one.span_s * _SPANS for _, _, one in found)
    high = max(float(one.per_s.max()) for _, _, one in found)
    across, up = Scale(0.0, seconds, LEFT, RIGHT - 12), Scale(0.0, nice_end(high, 3), BOTTOM, TOP)
    parts = [*axes.below(across, "time, s"), *axes.beside(up)]
    labels = Labels()
    for at, label, one in found:
        points = [
            (across((span + 0.5) * one.span_s), up(rate)) for span, rate in enumerate(one.per_s.tolist())
        ]
        parts.append(svg.path(points, f"series-{series(at)}"))
        x, y = points[-1]
        # Runs as fast as each other end at the same place.
        places = [((x + 5, y + 4 + step), "start") for step in (0, -13, 13, -26, 26, -39, 39)]
        parts += labels.put(label, f"value halo ink-{series(at)}", *places)
    described = ", ".join(f"{label} {number(float(one.per_s.mean()))}/s" for _, label, one in found)
    return svg.figure(
        "throughput", WIDTH, HEIGHT, "Samples answered per second", f"Mean: {described}.", parts
    )

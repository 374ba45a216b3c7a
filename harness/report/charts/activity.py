"""What a run did: its rate over time, its batches, where a request's time went, and who held it back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.scale import Scale, nice_end, number, tick_labels
from harness.run.results.bottleneck import Bottleneck
from harness.triton.statistics import ServerStatistics

_MOST_BINS = 60
_REQUESTS_PER_BIN = 8
"""Fewer would show the chance of each bin rather than the rate."""
_BARS_WITH_LABELS = 9
_ROW = 34.0


@dataclass(frozen=True)
class Rates:
    """Samples per second in equal spans of a run; (n,)."""

    per_s: npt.NDArray[np.float64]
    span_s: float


def rates(completed_us: npt.NDArray[Any], samples: npt.NDArray[Any], bins: int | None = None) -> Rates:
    """The samples answered in equal spans, as many as there are enough requests for.

    The requests of a batch are answered at once. Counted at that moment, batches would make a comb of spans
    with one and spans with none; so they count over the time since the batch before.
    """
    times_us, answered = _batches(completed_us, samples)
    end_us = max(float(times_us[-1]), 1.0)
    count = bins or int(min(_MOST_BINS, max(4, len(completed_us) // _REQUESTS_PER_BIN)))
    until = np.interp(np.linspace(0.0, end_us, count + 1), [0.0, *times_us], [0.0, *np.cumsum(answered)])
    span_s = end_us / count / 1e6
    return Rates(np.diff(until) / span_s, span_s)


def _batches(
    completed_us: npt.NDArray[Any], samples: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """When something was answered, ascending, and how many samples; answers close together are one."""
    order = np.argsort(completed_us, kind="stable")
    times_us = completed_us[order].astype(np.float64)
    gaps_us = np.diff(times_us, prepend=0.0)
    # Half of the time is in gaps that are at least so long: those between batches, not those within them.
    longest_first = np.sort(gaps_us)[::-1]
    usual_us = longest_first[np.searchsorted(np.cumsum(longest_first), times_us[-1] / 2)]
    ends = np.append(np.flatnonzero(gaps_us[1:] > usual_us / 4), len(times_us) - 1)
    return times_us[ends], np.diff(np.cumsum(samples[order].astype(np.float64))[ends], prepend=0.0)


def throughput(over_time: Rates, mean: float | None, offered: float | None) -> str:
    """Draw the rate over the run's time.

    Args:
        over_time: of the answers.
        mean: LoadGen's rate for the whole run.
        offered: Server: the rate at which it asks.
    """
    seconds = over_time.span_s * len(over_time.per_s)
    high = max(float(over_time.per_s.max()), mean or 0.0, offered or 0.0)
    across, up = Scale(0.0, seconds, LEFT, RIGHT), Scale(0.0, nice_end(high * 1.05, 3), BOTTOM, TOP)
    parts = [*axes.below(across, "time, s"), *axes.beside(up)]
    outline: list[svg.Point] = []
    for number_, rate in enumerate(over_time.per_s.tolist()):
        outline += [
            (across(number_ * over_time.span_s), up(rate)),
            (across((number_ + 1) * over_time.span_s), up(rate)),
        ]
    parts.append(svg.path([(LEFT, BOTTOM), *outline, (RIGHT, BOTTOM)], "area", is_closed=True))
    parts.append(svg.path(outline, "curve"))
    words = []
    if mean:
        words.append(f"mean {number(mean)}/s")
        room = width_of(words[-1])
        parts += [
            svg.line((LEFT, up(mean)), (RIGHT, up(mean)), "mark"),
            svg.line((RIGHT - room - 22, TOP - 10), (RIGHT - room - 6, TOP - 10), "mark"),
            svg.text((RIGHT, TOP - 6), words[-1], "value", anchor="end"),
        ]
    if offered:
        words.append(f"asked {number(offered)}/s")
        parts += [
            svg.line((LEFT, up(offered)), (RIGHT, up(offered)), "offer"),
            svg.line((LEFT, TOP - 10), (LEFT + 16, TOP - 10), "offer"),
            svg.text((LEFT + 22, TOP - 6), words[-1], "label"),
        ]
    lowest = f"lowest {number(float(over_time.per_s.min()))}/s"
    return svg.figure(
        "throughput",
        WIDTH,
        HEIGHT,
        "Samples answered per second, over time",
        f"{'; '.join([*words, lowest])}, in spans of {number(over_time.span_s)} s.",
        parts,
    )


def batch_sizes(executions: Mapping[int, int]) -> str:
    """Draw how often Triton executed a batch of which size."""
    total = sum(executions.values())
    shares = {size: 100 * count / total for size, count in sorted(executions.items())}
    up = Scale(0.0, min(100.0, nice_end(max(shares.values()), 3)), BOTTOM, TOP)
    parts = [*axes.beside(up, "%"), svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis")]
    is_sparse = len(shares) <= _BARS_WITH_LABELS
    if is_sparse:
        pitch = (RIGHT - LEFT) / max(len(shares), 4)
        first = (LEFT + RIGHT) / 2 - pitch * (len(shares) - 1) / 2
        centres = {size: first + pitch * at for at, size in enumerate(shares)}
        width = min(40.0, pitch * 0.62)
    else:
        low, high = min(shares), max(shares)
        width = min(16.0, (RIGHT - LEFT) / (high - low + 1) * 0.78)
        across = Scale(low, high, LEFT + width, RIGHT - width)
        centres = {size: across(size) for size in shares}
        ticks = [tick for tick in across.ticks(6) if tick == int(tick)]
        parts += [
            svg.text((across(tick), BOTTOM + 16), label, anchor="middle")
            for tick, label in zip(ticks, tick_labels(ticks), strict=True)
        ]
    for size, share in shares.items():
        x, top = centres[size], min(up(share), BOTTOM - 0.7)
        parts.append(
            svg.rect(
                x - width / 2,
                top,
                width,
                BOTTOM - top,
                "bar",
                title=f"batch of {size}: {executions[size]} executions, {share:.1f}%",
            )
        )
        if is_sparse:
            parts.append(svg.text((x, BOTTOM + 16), str(size), anchor="middle"))
            parts.append(svg.text((x, top - 5), _percent(share), "value", anchor="middle"))
    parts.append(axes.caption("samples in a batch"))
    commonest = sorted(shares.items(), key=lambda item: -item[1])[:3]
    described = ", ".join(f"{_percent(share)} of {size}" for size, share in commonest)
    return svg.figure(
        "batch-sizes",
        WIDTH,
        HEIGHT,
        "Executed batch sizes",
        f"Of {total}: {described} samples.",
        parts,
    )


def request_time(statistics: ServerStatistics, request_us: float | None) -> str:
    """Draw where the time of a mean request goes, one step after the other.

    Args:
        statistics: Triton's.
        request_us: from being sent to being answered; None where the client's part is not known.
    """
    each = [
        ("Triton's queue", statistics.queue_ns),
        ("batch: input", statistics.compute_input_ns),
        ("batch: inference", statistics.compute_infer_ns),
        ("batch: output", statistics.compute_output_ns),
    ]
    steps = [(name, ns / statistics.requests / 1e6) for name, ns in each]
    inside = sum(ms for _, ms in steps)
    if request_us is not None:
        steps.append(("client, transport", max(0.0, request_us / 1e3 - inside)))
    total = sum(ms for _, ms in steps) or 1.0
    left, right, top = 108.0, RIGHT - 2, 20.0
    across = Scale(0.0, total, left, right)
    parts: list[str] = []
    done = 0.0
    for at, (name, ms) in enumerate(steps):
        y = top + at * _ROW
        start, end = across(done), across(done + ms)
        style = "bar" if name == "batch: inference" else "bar soft"
        words = f"{number(ms)} ms, {_percent(100 * ms / total)}"
        room = width_of(words) + 6
        is_after = end + room < WIDTH
        if is_after:
            where = end + 6, y + 12
        else:
            # On top of the bar where there is no room in front of it either.
            where = (start - 6, y + 12) if start - room > left else (right, y - 3)
        parts += [
            svg.line((left, y + 8), (right, y + 8), "grid"),
            svg.text((left - 8, y + 12), name, anchor="end"),
            svg.rect(start, y, max(end - start, 1.2), 16, style),
            svg.text(where, words, "value halo", anchor="start" if is_after else "end"),
        ]
        done += ms
        if at < len(steps) - 1:
            parts.append(svg.line((across(done), y + 16), (across(done), y + _ROW), "join"))
    parts.append(axes.caption(f"mean of a request: {number(total)} ms"))
    described = ", ".join(f"{name} {number(ms)} ms" for name, ms in steps)
    return svg.figure(
        "request-time", WIDTH, HEIGHT, "Where the time of a request goes", f"On average {described}.", parts
    )


def shares(found: Bottleneck) -> str:
    """Draw the three shares that decide what holds a run back."""
    each = {
        "server": found.server_share,
        "client": found.client_share,
        "transport": found.transport_share,
    }
    left, right = 70.0, RIGHT - 44
    across = Scale(0.0, 1.0, left, right)
    parts: list[str] = []
    for at, (name, share) in enumerate(each.items()):
        y = 6 + at * 30.0
        is_culprit = found.bound.startswith(name)
        parts += [
            svg.text((left - 8, y + 12), name, "value" if is_culprit else "label", anchor="end"),
            svg.rect(left, y, right - left, 16, "track"),
            svg.rect(left, y, across(share) - left, 16, "bar" if is_culprit else "bar soft"),
            svg.text((right + 6, y + 12), _percent(100 * share), "value" if is_culprit else "label"),
        ]
    described = ", ".join(f"{name} {_percent(100 * share)}" for name, share in each.items())
    return svg.figure("bottleneck", WIDTH, 96, f"The run is {found.bound}", f"Shares: {described}.", parts)


def target(value: float, threshold: float | None) -> str:
    """Draw a score, 0 to 1, against what it must reach."""
    left, right, y = 0.5, WIDTH - 0.5, 22.0
    across = Scale(0.0, 1.0, left, right)
    is_met = threshold is None or value >= threshold
    parts = [
        svg.rect(left, y, right - left, 12, "track"),
        svg.rect(left, y, across(value) - left, 12, "bar" if is_met else "bar alarm"),
    ]
    described = f"{value:.2%}"
    if threshold is not None:
        x = across(threshold)
        words = f"target {threshold:.2%}"
        is_right = x + 60 > WIDTH
        parts += [
            svg.line((x, y - 6), (x, y + 18), "goal"),
            svg.text((x, y - 10), words, "label", anchor="end" if is_right else "middle"),
        ]
        described += f", {words}"
    return svg.figure("accuracy", WIDTH, 44, "Accuracy", f"{described}.", parts)


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.5 else f"{share:.0f}%"

"""What a run did: its batches, where a request's time went, and who held it back."""

from collections.abc import Mapping

from harness.report.charts import axes, svg
from harness.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, width_of
from harness.report.charts.scale import Scale, nice_end, number, tick_labels
from harness.run.mlperf.figures import counted
from harness.run.results.bottleneck import Bottleneck
from harness.triton.statistics import ServerStatistics

_BARS_WITH_LABELS = 9
_ROW = 34.0


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
                title=f"batch of {size}: {counted(executions[size], 'execution')}, {share:.1f}%",
            )
        )
        if is_sparse:
            parts.append(svg.text((x, BOTTOM + 16), str(size), anchor="middle"))
            parts.append(svg.text((x, top - 5), _percent(share), "value", anchor="middle"))
    parts.append(axes.caption("samples in a batch"))
    commonest = sorted(shares.items(), key=lambda item: -item[1])[:3]
    described = ", ".join(f"{_percent(share)} of {counted(size, 'sample')}" for size, share in commonest)
    return svg.figure(
        "batch-sizes",
        WIDTH,
        HEIGHT,
        "Executed batch sizes",
        f"Of {counted(total, 'batch', 'batches')}: {described}.",
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

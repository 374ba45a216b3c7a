"""Charts: what is drawn is what was measured."""

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.report.charts import activity, course, latency, rates, scale, svg, telemetry, throughput
from harness.report.charts.axes import BOTTOM, LEFT, RIGHT, TOP, width_of
from harness.report.charts.latency import Latencies
from harness.report.charts.scale import Scale
from harness.run.mlperf.rate_search import Probe
from harness.run.results.bottleneck import Bottleneck, Bound
from harness.run.telemetry.record import Course
from harness.triton.statistics import ServerStatistics


def of(values: list[int] | np.ndarray, weights: list[int] | None = None) -> Latencies:
    return Latencies.of(np.array(values, np.int64), np.array(weights or [1] * len(values), np.int64))


def parts(picture: str, tag: str, style: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(picture).iter(tag) if e.get("class") == style]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 0.47, [0, 0.1, 0.2, 0.3, 0.4]),
        (13.2, 61, [20, 30, 40, 50, 60]),
        (0, 1_000_000, [0, 200_000, 400_000, 600_000, 800_000, 1_000_000]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[float]) -> None:
    assert scale.ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_1_2_5_or_powers_of_ten() -> None:
    assert scale.log_ticks(8.8, 260) == pytest.approx([10, 20, 50, 100, 200])
    assert scale.log_ticks(0.5, 2e5) == pytest.approx([1, 10, 100, 1000, 10_000, 100_000])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04217, "0.0422"),
        (0.5, "0.500"),
        (3.14159, "3.14"),
        (99.97, "100.0"),
        (12345.6, "12,346"),
        (0, "0.000"),
    ],
)
def test_figures_have_the_digits_that_mean_something(value: float, text: str) -> None:
    assert scale.number(value) == text


def test_text_from_outside_cannot_end_an_element() -> None:
    picture = svg.figure("a", 1, 1, "<b>", '"&', [svg.text((0, 0), "<script>")])
    assert "<script>" not in picture
    assert [e.text for e in ElementTree.fromstring(picture)] == ["<b>", '"&', "<script>"]


def test_percentiles_of_weighted_latencies() -> None:
    one = of([3000, 1000, 2000], [1, 98, 1])
    assert one.at(0.5) == 1.0
    assert one.at(0.99) == 2.0
    assert one.at(1.0) == 3.0


def test_a_long_tail_gets_a_logarithmic_axis_and_a_short_one_does_not() -> None:
    assert latency.axis([of([1000] * 99 + [100_000])]).is_log
    assert not latency.axis([of([1000, 1500, 2000])]).is_log


def test_a_bound_nearby_is_on_the_axis_and_one_far_away_does_not_squeeze_it() -> None:
    assert latency.axis([of([9000, 10_000])], 15.0).high >= 15
    assert latency.axis([of([9000, 10_000])], 500.0).high < 15


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=6))
@example([62_394_509])
def test_an_axis_holds_every_latency(latencies_us: list[int]) -> None:
    latencies = of(latencies_us)
    across = latency.axis([latencies])
    assert np.histogram(latencies.ms, across.edges(60))[0].sum() == len(latencies_us)


def test_a_histogram_has_every_query_once_and_alarms_above_the_bound() -> None:
    latencies = of([10_000] * 60 + [20_000] * 30 + [30_000] * 10)
    across = latency.axis([latencies], 25.0)
    picture = latency.histogram(latencies, across, {50.0: 10.0}, 25.0, "queries")
    heights = {
        style: [float(e.get("height")) for e in parts(picture, "rect", style)]
        for style in ("bar", "bar alarm")
    }
    assert len(heights["bar"]) == 2
    assert len(heights["bar alarm"]) == 1
    first, second, third = *heights["bar"], *heights["bar alarm"]
    assert (second / first, third / first) == pytest.approx((0.5, 1 / 6), rel=0.01)
    assert "p50 10.00 ms" in picture


def test_marks_that_would_hide_each_other_are_in_two_rows() -> None:
    latencies = of(list(range(1000, 2000)))
    across = latency.axis([latencies])
    picture = latency.histogram(latencies, across, {50.0: 1.5, 90.0: 1.52}, None, "queries")
    rows = {e.text: float(e.get("y")) for e in parts(picture, "text", "value")}
    assert rows["p90"] < rows["p50"]


def test_a_percentile_curve_rises_to_the_largest_latency() -> None:
    latencies = of(np.arange(1, 1001) * 100)
    across = latency.axis([latencies])
    picture = latency.percentiles([("curve", "", latencies)], across, {99.0: 99.0}, None, "queries")
    (curve,) = parts(picture, "path", "curve")
    points = [tuple(map(float, pair.split())) for pair in curve.get("d").removeprefix("M").split(" L")]
    assert len(points) > 100
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    assert points[0] == pytest.approx((across(0.1), BOTTOM), abs=0.1)
    assert points[-1][0] == pytest.approx(across(100.0), abs=1.0)
    (dot,) = parts(picture, "circle", "dot")
    nearest = min(points, key=lambda point: abs(point[0] - float(dot.get("cx"))))
    assert float(dot.get("cy")) == pytest.approx(nearest[1], abs=2.0)


def test_one_query_is_drawn() -> None:
    latencies = of([5000])
    across = latency.axis([latencies])
    histogram = latency.histogram(latencies, across, {}, None, "queries")
    (bar,) = parts(histogram, "rect", "bar")
    assert float(bar.get("height")) > 0
    curves = latency.percentiles([("curve", "", latencies)], across, {}, None, "queries")
    (curve,) = parts(curves, "path", "curve")
    assert len({pair.split()[0] for pair in curve.get("d").removeprefix("M").split(" L")}) == 1
    assert not re.search("nan|inf", histogram + curves, re.IGNORECASE)


def test_rates_count_every_sample() -> None:
    completed_us = np.array([2_000_000, 500_000, 1_000_000, 1_500_000])
    found = throughput.rates(completed_us, np.array([4, 1, 2, 3]), 4)
    assert found.span_s == pytest.approx(0.5)
    assert found.per_s.tolist() == pytest.approx([2, 4, 6, 8])


def test_requests_of_a_batch_count_over_the_time_since_the_batch_before() -> None:
    # 64 answers within 6 ms of each other, every 0.4 s: 160 a second, whatever the spans are.
    batches_us = np.arange(1, 31)[:, None] * 400_000
    completed_us = np.sort((batches_us - np.arange(64) * 100).ravel())
    found = throughput.rates(completed_us, np.ones(len(completed_us)))
    assert found.span_s == pytest.approx(0.2)
    assert found.per_s.tolist() == pytest.approx([160.0] * 60)


def test_batches_are_labelled_with_their_share() -> None:
    picture = activity.batch_sizes({1: 75, 8: 25})
    labels = [e.text for e in ElementTree.fromstring(picture).iter("text")]
    assert {"75%", "25%", "1", "8"} <= set(labels)


def test_many_batch_sizes_have_an_axis_instead() -> None:
    picture = activity.batch_sizes({size: size for size in range(1, 33)})
    bars = parts(picture, "rect", "bar")
    assert len(bars) == 32
    edges = [(float(e.get("x")), float(e.get("x")) + float(e.get("width"))) for e in bars]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(edges))
    assert edges[0][0] >= LEFT
    assert edges[-1][1] <= RIGHT


def test_the_time_of_a_request_ends_where_the_request_ends() -> None:
    statistics = ServerStatistics(10, 0, 10, 10, 10_000_000, 0, 20_000_000, 0, {1: 10})
    picture = activity.request_time(statistics, 4000.0)
    assert re.search(r"mean of a request: 4\.00 ms", picture)
    bars = [*parts(picture, "rect", "bar soft"), *parts(picture, "rect", "bar")]
    ends = [float(e.get("x")) + float(e.get("width")) for e in bars]
    assert max(ends) == pytest.approx(RIGHT - 2, abs=1.5)
    assert "client, transport 1.00 ms" in picture


def test_the_culprit_is_the_dark_bar() -> None:
    picture = activity.shares(Bottleneck(Bound.CLIENT, 0.2, 0.7, 0.1, ()))
    (bar,) = parts(picture, "rect", "bar")
    tracks = parts(picture, "rect", "track")
    assert float(bar.get("width")) == pytest.approx(0.7 * float(tracks[0].get("width")), abs=0.1)


def test_a_missed_target_alarms() -> None:
    assert parts(activity.target(0.5, 0.9), "rect", "bar alarm")
    assert not parts(activity.target(0.95, 0.9), "rect", "bar alarm")
    assert not parts(activity.target(0.1, None), "line", "goal")


def test_a_scale_keeps_what_is_beyond_its_ends_within() -> None:
    across = Scale(1.0, 100.0, 0.0, 200.0, is_log=True)
    assert (across(10.0), across(0.1), across(1e6)) == (pytest.approx(100.0), 0.0, 200.0)


def test_the_median_and_the_slowest_of_each_moment_are_drawn() -> None:
    at_s = np.linspace(0, 10, 160)
    took_ms = np.where(at_s < 5, 10.0, 20.0)
    took_ms[40] = 40.0
    picture = course.over_time("course", "Course", at_s, took_ms, 30.0)
    (median,) = parts(picture, "path", "curve")[:1]
    heights = {pair.split()[1] for pair in median.get("d").removeprefix("M").split(" L")}
    assert len(heights) == 2
    assert "slowest 40.00 ms" in picture
    assert parts(picture, "line", "limit")


@pytest.mark.parametrize("bound_ms", [10.0, 25.0, 120.0, 300.0, 340.0])
def test_the_bound_of_a_course_is_named_in_its_key_where_no_curve_is(bound_ms: float) -> None:
    took_ms = np.where(np.arange(160) % 40 == 7, 300.0, 20.0)
    picture = course.over_time("course", "Course", np.linspace(0, 10, 160), took_ms, bound_ms)
    words = {e.text: e for e in ElementTree.fromstring(picture).iter("text")}
    bound, slowest = words[f"bound {bound_ms:g} ms"], words["slowest"]
    assert bound.get("y") == slowest.get("y")
    assert areas(picture, "value alarm-text")[0][2] < areas(picture, "label")[-1][0]
    lines = [e for e in parts(picture, "line", "limit") if e.get("x2") == f"{RIGHT:g}"]
    assert [float(e.get("y1")) < BOTTOM for e in lines] == [True]


def areas(picture: str, style: str) -> list[tuple[float, float, float, float]]:
    """Where words are: left, top, right, bottom."""
    found = []
    for e in parts(picture, "text", style):
        x, y, width = float(e.get("x")), float(e.get("y")), width_of(e.text)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[e.get("text-anchor")]
        found.append((left, y - 9, left + width, y + 1))
    return found


@pytest.mark.parametrize("bound_ms", [5.0, 10.0, 30.0, 60.0, 179.0, 400.0, 1500.0])
@pytest.mark.parametrize("seed", range(4))
def test_nothing_runs_through_the_words_of_the_bound_and_of_the_percentiles(
    seed: int, bound_ms: float
) -> None:
    latencies = of(np.random.default_rng(seed).lognormal(10.5, 0.1 + 0.3 * seed, 900).astype(np.int64))
    across = latency.axis([latencies], bound_ms)
    marks = {level: latencies.at(level / 100) for level in (50.0, 90.0, 99.0)}
    picture = latency.percentiles([("curve", "", latencies)], across, marks, bound_ms, "queries")
    (curve,) = parts(picture, "path", "curve")
    ends = [tuple(map(float, pair.split())) for pair in curve.get("d").removeprefix("M").split(" L")]
    drawn = [(float(e.get("cx")), float(e.get("cy"))) for e in parts(picture, "circle", "dot")]
    drawn += [
        (x1 + (x2 - x1) * part, y1 + (y2 - y1) * part)
        for (x1, y1), (x2, y2) in itertools.pairwise(ends)
        for part in np.linspace(0, 1, 20)
    ]
    bound, dots = areas(picture, "value alarm-text halo"), areas(picture, "value halo")
    assert (len(bound), len(dots)) == (1, 3)
    for left, top, right, bottom in [*bound, *dots]:
        assert not [(x, y) for x, y in drawn if left < x < right and top < y < bottom]
    for line in parts(picture, "line", "limit"):
        x = float(line.get("x1"))
        assert not [area for area in dots if area[0] < x < area[2]]


@pytest.mark.parametrize("spread", [[14_000, 15_000, 16_000], [14_000] * 9 + [900_000]])
def test_a_bound_below_the_fastest_query_is_where_it_belongs(spread: list[int]) -> None:
    across = latency.axis([of(spread)], 10.0)
    assert across.low < 10.0
    assert across(10.0) < across(14.0) - 10
    picture = course.over_time("course", "Course", np.arange(len(spread)), np.array(spread) / 1e3, 10.0)
    (limit,) = [e for e in parts(picture, "line", "limit") if e.get("x2") == f"{RIGHT:g}"]
    assert float(limit.get("y1")) < BOTTOM - 5


@pytest.mark.parametrize("took_ms", [[5.0], [0.0, 0.0], [1.0, 90_000.0]])
def test_a_course_of_any_length_is_a_line(took_ms: list[float]) -> None:
    picture = course.over_time("course", "Course", np.zeros(len(took_ms)), np.array(took_ms))
    for path in parts(picture, "path", "curve")[:1] + parts(picture, "path", "curve faint")[:1]:
        xs = [float(pair.split()[0]) for pair in path.get("d").removeprefix("M").split(" L")]
        assert (xs[0], xs[-1]) == (LEFT, RIGHT)
    assert not re.search("nan|inf", picture, re.IGNORECASE)


def test_a_rate_that_never_changes_is_drawn_across_the_chart() -> None:
    picture = throughput.draw(throughput.rates(np.array([9_000]), np.array([24])), 2666.7, None)
    (curve,) = parts(picture, "path", "curve")
    xs = [float(pair.split()[0]) for pair in curve.get("d").removeprefix("M").split(" L")]
    assert (xs[0], xs[-1]) == (LEFT, RIGHT)


def test_idle_time_and_the_rate_of_each_instance_are_drawn() -> None:
    over_time = throughput.Rates(np.array([10.0, 20.0, 20.0, 10.0]), 1.0)
    shared = throughput.Instances(2, 1.0, 0.5)
    picture = throughput.draw(over_time, 15.0, None, shared)
    widths = [float(e.get("width")) for e in parts(picture, "rect", "track")]
    assert widths == pytest.approx([(RIGHT - LEFT) / 4, (RIGHT - LEFT) / 8], abs=0.1)
    assert "of each of 2 instances" in picture
    alone = throughput.draw(over_time, 15.0, None, throughput.Instances(1, 0.0, 0.0))
    assert not parts(alone, "rect", "track")
    assert "instances" not in alone


def test_the_rate_that_was_found_is_named_and_no_words_cover_a_test() -> None:
    tried = [Probe(40.0, 99.0, True), Probe(60.0, 500.0, False), Probe(50.0, 80.0, True, is_confirming=True)]
    picture = rates.probes(tried, 100.0)
    words = {e.text: e for e in ElementTree.fromstring(picture).iter("text")}
    assert "50.00/s" in words
    bound, covered = words["bound 100.0 ms"], parts(picture, "circle", "dot")[0]
    assert abs(float(bound.get("y")) - float(covered.get("cy"))) > 5 or bound.get("text-anchor") == "end"
    # The one of 500 ms is no dot at the upper edge, which would be of 300.
    assert len(parts(picture, "circle", "dot")) == 2
    assert len(parts(picture, "path", "dot alarm")) == 1
    assert rates.has_beyond(tried, 100.0)
    assert not rates.has_beyond([tried[0], tried[2]], 100.0)


def test_each_servers_cpus_gpus_and_queue_have_a_line_and_what_is_not_told_has_none() -> None:
    none = (None, None, None)
    first = Course("a:1", (0.0, 1.0, 2.0), (0.5, 0.7, 0.6), (0.0, 8.0, 4.0), (0.9, None, 0.8), none)
    second = Course("b:1", (0.5, 1.5, 4.0), (0.1, 0.1, 0.1), (0.0, 0.0, 0.0), none, none)
    picture = telemetry.course([first, second])
    assert len(parts(picture, "path", "series-1")) == 2
    (gpu,) = parts(picture, "path", "series-2")
    # At 90 and 80 per cent of the upper half, and nothing in between.
    (x1, y1), (x2, y2) = (map(float, point.split()) for point in gpu.get("d")[1:].split(" L"))
    assert (x1, x2) == (LEFT, (LEFT + RIGHT) / 2)
    assert TOP < y1 < y2 < (TOP + BOTTOM) / 2
    assert len(parts(picture, "path", "series-3")) == 2
    assert "CPUs 35% busy on average; GPUs 85% busy on average; up to 8.00 requests waiting." in picture


def test_a_queue_alone_has_the_whole_height() -> None:
    none = (None, None)
    picture = telemetry.course([Course("a:1", (0.0, 1.0), none, (0.0, 10.0), none, none)])
    (line,) = parts(picture, "path", "series-3")
    heights = [float(point.split()[1]) for point in line.get("d")[1:].split(" L")]
    assert heights == [BOTTOM, TOP]
    assert "%" not in picture


def test_a_server_that_tells_no_queue_is_drawn_without_one() -> None:
    none = (None, None)
    picture = telemetry.course([Course("a:1", (0.0, 1.0), (0.5, 0.5), none, none, none)])
    assert parts(picture, "path", "series-3") == parts(picture, "path", "series-2") == []
    assert "waiting" not in picture


@pytest.mark.parametrize(("moments", "is_enough"), [((), False), ((1.0,), False), ((1.0, 2.0), True)])
def test_one_moment_is_no_course(moments: tuple[float, ...], is_enough: bool) -> None:
    nothing = tuple(None for _ in moments)
    assert telemetry.has_course([Course("a:1", moments, moments, *[nothing] * 3)]) == is_enough
    assert not telemetry.has_course([Course("a:1", moments, *[nothing] * 4)])
    # Nothing waited.
    assert not telemetry.has_course(
        [Course("a:1", moments, nothing, tuple(0.0 for _ in moments), *[nothing] * 2)]
    )

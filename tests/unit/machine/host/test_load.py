"""How busy a machine was, from readings; and that they are taken for as long as they should be."""

import dataclasses
import threading
from collections.abc import Iterator

import pytest

from harness.machine.host.load import Load, Series, after, load_of
from harness.machine.host.monitor import Monitor
from harness.machine.host.use import Reading

QUIET = Load(4, others=0.05, ours=3.5, steal=0.01, throttled=0)


def readings(*spans: tuple[float, float, float], mhz: float = 2500.0) -> list[Reading]:
    """A second apart: CPUs that all, ours and the host took in each."""
    found = [Reading(100.0, 50.0, 20.0, 3.0, mhz, 5)]
    for busy, ours, steal in spans:
        last = found[-1]
        found.append(
            Reading(last.at_s + 1, last.busy_s + busy, last.ours_s + ours, last.steal_s + steal, mhz, 5)
        )
    return found


def test_others_are_all_but_ours() -> None:
    load = load_of(readings((1.5, 1.25, 0.0), (2.0, 0.5, 0.25)), 2)
    assert load == Load(
        2,
        others=0.875,
        ours=0.875,
        steal=0.125,
        throttled=0,
        series=Series(1.0, (0.25, 1.5), (1.25, 0.5), (0.0, 0.25), (2500.0, 2500.0)),
    )


def test_counters_that_are_not_kept_alike_make_nobody_negative() -> None:
    load = load_of(readings((1.0, 1.5, 0.0), (1.5, 1.0, 0.0), (0.5, -0.5, 0.0)), 2)
    assert load is not None
    assert load.series.others == (0.0, 0.5, 1.0)
    assert load.series.ours == (1.5, 1.0, 0.0)
    # Over the whole time, what was too much in one span is taken from the next.
    assert load.others == pytest.approx(1 / 3, abs=1e-3)


def test_whose_processes_are_not_known_nothing_is_said_of_others() -> None:
    load = load_of(readings((1.0, 0.1, 0.0)), 2, why_unknown="the server is hidden")
    assert load is not None
    assert (load.others, load.series.others, load.why_unknown) == (None, (), "the server is hidden")
    assert load.disturbances == ()


@pytest.mark.parametrize("few", [readings(), readings((0.0, 0.0, 0.0))])
def test_what_counts_nothing_is_not_known(few: list[Reading]) -> None:
    assert load_of(few, 2) is None


def test_a_long_test_has_a_series_that_is_not_longer() -> None:
    load = load_of(readings(*[(1.0, 0.5, 0.0)] * 1000), 2)
    assert load is not None
    assert len(load.series.others) == len(load.series.mhz) == 112
    assert load.series.span_s * 112 == pytest.approx(1000, abs=0.1)
    assert set(load.series.others) == {0.5}


def falling(*mhz: float) -> Load:
    return dataclasses.replace(QUIET, series=Series(mhz=mhz))


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (QUIET, ()),
        (dataclasses.replace(QUIET, others=0.94), ("other processes used 0.94 of 4 CPUs (24%)",)),
        (dataclasses.replace(QUIET, others=0.19), ()),
        (
            dataclasses.replace(QUIET, steal=0.4),
            ("the host of this virtual machine took 0.40 of 4 CPUs (10%) away",),
        ),
        (dataclasses.replace(QUIET, throttled=7), ("cores were slowed down for their heat, 7 times",)),
        (dataclasses.replace(QUIET, other_runs=1), ("another run was under way on the same machine",)),
        (dataclasses.replace(QUIET, other_runs=2), ("2 other runs were under way on the same machine",)),
        (falling(*[3500.0] * 6, *[2900.0] * 3), ("the clock fell from 3.50 to 2.90 GHz",)),
        (falling(*[3500.0] * 6, *[3300.0] * 3), ()),
        (falling(3500.0, 2900.0), ()),
        (falling(*[2900.0] * 6, *[3500.0] * 3), ()),
    ],
)
def test_what_disturbs_is_said(load: Load, expected: tuple[str, ...]) -> None:
    assert load.disturbances == expected


def test_a_search_rests_on_all_of_its_tests() -> None:
    busy = dataclasses.replace(QUIET, others=0.94)
    assert after(QUIET, [QUIET, None]) == QUIET
    assert after(None, [busy]) is None
    found = after(QUIET, [busy, QUIET, None, busy])
    assert found is not None
    assert found.disturbances == ("2 tests of the search before it ran on a busy machine",)


def test_a_monitor_reads_until_its_end_and_forgets_what_was_before_a_restart() -> None:
    enough = threading.Event()
    counter = iter(range(10_000))

    def read() -> Reading:
        number = next(counter)
        if number > 5:
            enough.set()
        return Reading(number, 0.0, 0.0, 0.0)

    with Monitor(read, every_s=0.001) as monitor:
        assert enough.wait(60)
        monitor.restart()
        restarted = monitor.readings[0].at_s
    ended = len(monitor.readings)
    assert restarted > 5
    assert [one.at_s for one in monitor.readings] == sorted({one.at_s for one in monitor.readings})
    assert monitor.readings[0].at_s == restarted
    assert ended >= 2
    assert next(counter) == monitor.readings[-1].at_s + 1


def test_a_monitor_that_is_hardly_begun_has_two_readings() -> None:
    numbers: Iterator[int] = iter(range(10))
    with Monitor(lambda: Reading(next(numbers), 0.0, 0.0, 0.0)) as monitor:
        pass
    assert [one.at_s for one in monitor.readings] == [0, 1]

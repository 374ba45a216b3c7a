"""What is said before a run, and seen during a test; on counters that are handed in."""

import logging

import pytest

from harness.machine.host import use
from harness.machine.host.use import Reading
from harness.machine.host.watch import Before, Watch


class Machine:
    """Two CPUs, of which others take a share; a second between any two readings."""

    def __init__(self) -> None:
        self.now_s = self.busy_s = 0.0
        self.others = 0.0
        self.span_s = 1.0
        self.roots: set[int] = set()
        self.runs: tuple[int, ...] = ()

    def reader(self, roots: set[int]):
        self.roots = set(roots)
        return self.read, 2

    def read(self) -> Reading:
        self.now_s += self.span_s
        self.busy_s += self.span_s * (self.others + 0.5)
        return Reading(self.now_s, self.busy_s, self.now_s * 0.5, 0.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Machine:
    caplog.set_level(logging.INFO)
    made = Machine()
    monkeypatch.setattr(use, "reader", made.reader)
    monkeypatch.setattr(use, "other_runs", lambda: made.runs)
    return made


@pytest.mark.parametrize(("others", "expected"), [(1.25, 1), (0.05, 0)])
def test_a_busy_machine_is_told_of_before_the_run(
    machine: Machine, caplog, others: float, expected: int
) -> None:
    machine.others = others
    with Before("now") as before:
        pass
    # Only where a run will be measured: what goes wrong before it is one line.
    assert (before.others, caplog.messages) == (others, [])
    before.tell()
    before.tell()
    assert len(caplog.messages) == expected
    if expected:
        assert caplog.messages[0].startswith("busy machine: other processes use 1.25 of 2 CPUs (62%)")


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ((17,), "another run is under way on this machine (pid 17): each slows the others down"),
        ((17, 19), "2 other runs are under way on this machine (pid 17, 19): each slows the others down"),
    ],
)
def test_another_run_is_told_of_before_the_run(
    machine: Machine, caplog, runs: tuple[int, ...], expected: str
) -> None:
    machine.runs = runs
    with Before("now") as before:
        pass
    before.tell()
    assert caplog.messages == [expected]


def test_what_was_too_short_to_tell_says_nothing(machine: Machine, caplog) -> None:
    machine.others, machine.span_s = 1.0, 0.1
    with Before("now") as before:
        pass
    before.tell()
    assert (before.others, caplog.messages) == (None, [])


def test_the_load_is_that_of_the_test_not_of_what_was_before(machine: Machine) -> None:
    machine.others, machine.runs = 1.5, (17,)
    with Watch([1, 2]) as watch:
        watch.restart()
        machine.others = 0.25
    assert watch.load is not None
    assert (watch.load.others, watch.load.ours, watch.load.other_runs) == (0.25, 0.5, 1)
    assert machine.roots == {1, 2}


def test_where_not_all_of_ours_are_known_others_are_not_either(machine: Machine) -> None:
    with Watch([1], "the server is hidden") as watch:
        pass
    assert watch.load is not None
    assert (watch.load.others, watch.load.why_unknown) == (None, "the server is hidden")

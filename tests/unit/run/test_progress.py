import logging
import os

import pytest

from harness.run import progress
from harness.run.mlperf.logs import PeakSearch
from harness.run.mlperf.plan import Mode
from harness.run.mlperf.rounds import Scenario
from harness.run.worker.job import Counts, Reporter, Status, Step, read_status
from tests.plans import any_plan


def plan(scenario=Scenario.SERVER, mode=Mode.PERFORMANCE, duration_ms=10_000, queries=100, per_query=1):
    return any_plan(
        scenario, mode=mode, min_duration_ms=duration_ms, min_query_count=queries, samples_per_query=per_query
    )


def status_of(elapsed_s, completed, total=None, issued=0, in_flight=1):
    return Status(Step.TEST, elapsed_s, Counts(total, issued, completed, in_flight))


MULTI_STREAM = plan(Scenario.MULTI_STREAM, per_query=8)
OFFLINE = plan(Scenario.OFFLINE)
ACCURACY = plan(mode=Mode.ACCURACY)
PEAK = plan(mode=Mode.FIND_PEAK)


@pytest.mark.parametrize(
    ("of", "status", "share", "seconds"),
    [
        # The duration is what takes longer: 4 s of 10.
        (plan(), status_of(4, 90), 0.4, 6),
        # The queries are: 20 of 100 in 4 s.
        (plan(), status_of(4, 20), 0.2, 16),
        (MULTI_STREAM, status_of(4, 160), 0.2, 16),
        (plan(duration_ms=0), status_of(4, 50), 0.5, 4),
        # Both are reached, and LoadGen waits for the last answers.
        (plan(), status_of(11, 120), 1, 0),
        # An overloaded server: they came in time, and a third of them is answered.
        (plan(), status_of(20, 200, issued=600), 1 / 3, 40),
        # LoadGen decides how many samples Offline has, and tells with its one query.
        (OFFLINE, status_of(4, 300, total=1200), 0.25, 12),
        (OFFLINE, status_of(0.1, 0), None, None),
        (ACCURACY, status_of(4, 10, total=50), 0.2, 16),
        (PEAK, status_of(4, 90), None, None),
        (plan(), status_of(0.5, 0), 0, None),
    ],
)
def test_what_is_left_follows_from_when_loadgen_ends(of, status, share, seconds):
    assert progress.share_done(of, status) == pytest.approx(share)
    assert progress.seconds_left(of, status) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("of", "status", "text"),
    [
        (plan(), status_of(4, 20, issued=24), "Server: 20%, 20 samples, 1 in flight, 5.0/s, 0:16 left"),
        (
            OFFLINE,
            status_of(400, 100, 1200, 1200, 16),
            "Offline: 100 of 1200 samples, 16 in flight, 5.0/s, 1:13:20 left",
        ),
        (plan(), status_of(0.5, 0, issued=1), "Server: 0%, 0 samples, 1 in flight, 5.0/s"),
        (PEAK, status_of(4, 90), "Server: 90 samples, 1 in flight, 5.0/s"),
    ],
)
def test_a_test_is_one_line(of, status, text):
    assert progress.describe_test(of, status, 5.0) == text


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (PeakSearch(12.5), "trying 12.5 queries/s"),
        (PeakSearch(25.0, 12.5), "trying 25 queries/s (12.5 kept the bound)"),
        # Halved to a tenth of a query: 64 of them take 6 tests of 10 s, and one more confirms.
        (PeakSearch(15.7, 12.5, 18.9), "trying 15.7 queries/s (12.5 kept the bound, 18.9 did not)"),
    ],
)
def test_loadgens_search_tells_the_rate_and_between_which_it_is(search, said):
    # Until both bounds are known, nobody knows how many there will be.
    left = ", about 70 s left" if search.high else ", each rate takes about 10 s"
    assert progress.describe_test(PEAK, status_of(4, 90), 5.0, search) == (
        f"Server: {said}, 90 samples, 1 in flight, 5.0/s{left}"
    )


def test_the_rate_is_that_of_the_last_seconds():
    rate = progress.Rate()
    assert rate.update(1.0, 100) == 100
    assert rate.update(6.0, 200) == pytest.approx(20)
    # 300 in the last 6 s; that the first second was fast is forgotten.
    assert rate.update(7.0, 400) == pytest.approx(50)
    assert progress.Rate().update(0.0, 0) == 0


def test_away_from_a_terminal_there_are_plain_lines(caplog, monkeypatch):
    monkeypatch.setattr("harness.machine.progress._SHOW_AFTER_S", 0.0)
    monkeypatch.setattr("harness.machine.progress._LINE_EVERY_S", 0.0)
    caplog.set_level(logging.INFO)
    statuses = [
        Status(Step.LOAD, 1.0, Counts(total=64, completed=16)),
        Status(Step.CALIBRATE, 3.4),
        status_of(4, 20, issued=24),
    ]
    progress.show(plan(), statuses)
    assert [record.getMessage() for record in caplog.records] == [
        "Server: loading samples, 16 of 64",
        "Server: calibrating, 3 s",
        "Server: 20%, 20 samples, 1 in flight, 5.0/s, 0:16 left",
    ]


@pytest.mark.timeout(60)  # what goes wrong here waits for ever
def test_statuses_arrive_until_the_worker_ends(monkeypatch):
    monkeypatch.setattr("harness.run.worker.job._EVERY_S", 0.01)
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as lines:
        with Reporter(writing) as reporter:
            assert read_status(lines.readline()).step == Step.CHECK
            reporter.begin(Step.TEST, lambda: Counts(9, 8, 7, 6))
            status = next(status for status in map(read_status, lines) if status.step == Step.TEST)
            assert status.counts == Counts(total=9, issued=8, completed=7, in_flight=6)
            assert 0 <= status.elapsed_s < 60
        os.close(writing)
        assert {read_status(line).step for line in lines} <= {Step.TEST}


@pytest.mark.timeout(60)
def test_a_runner_that_does_not_read_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("harness.run.worker.job._EVERY_S", 0.0)
    reading, writing = os.pipe()
    asked = []
    reporter = Reporter(writing)
    # Before it tells anything: a busy machine lets it fill the pipe with what it began with.
    reporter.begin(Step.TEST, lambda: asked.append(1) or Counts())
    with reporter:
        while len(asked) < 2000:  # 200 kB; a pipe takes 64
            pass
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        arrived = [read_status(line) for line in lines]
    # What the pipe had no room for was left out, and nothing was cut off.
    assert 0 < len(arrived) < len(asked)
    assert {status.step for status in arrived} == {Step.TEST}


def test_a_test_begins_once_however_often_samples_are_loaded() -> None:
    statuses = [Status(step, at) for at, step in enumerate((Step.LOAD, Step.TEST, Step.LOAD, Step.TEST))]
    begun: list[float] = []
    passing = progress.with_start(statuses, begun.append)
    assert (next(passing).step, begun) == (Step.LOAD, [])
    assert (next(passing).step, begun) == (Step.TEST, [1.0])
    assert (list(passing), begun) == (statuses[2:], [1.0])

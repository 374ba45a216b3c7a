"""What ends a test that cannot end by itself, by a made-up SUT and a clock that is told."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from harness.machine.paths import PROJECT_ROOT
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline, watchdog
from harness.run.worker.job import Failures, read_outcome
from harness.run.worker.watchdog import Bound, Watchdog
from tests.plans import any_job

JOB = any_job(Plan(Scenario.SERVER, Mode.PERFORMANCE, 1000, 1, 16, 1, 10**8, 1, 2, 3))


@dataclass
class FakeSlot:
    response_ids: tuple[int, ...] = ()
    uses: int = 0


@dataclass
class FakeSut:
    failures: Failures = field(default_factory=Failures)
    slots: list[FakeSlot] = field(default_factory=lambda: [FakeSlot(), FakeSlot()])
    completed_samples: int = 0


def test_a_server_that_is_gone_ends_the_test_unless_loadgen_does_so_within_two_seconds() -> None:
    sut = FakeSut()
    dog = Watchdog(JOB, sut)
    assert dog.reason_to_end(0.0) is None
    sut.failures.is_fatal = True
    # Counted from when it is first seen, whatever the clock says.
    assert [dog.reason_to_end(now) for now in (0.0, 1.0, 2.0)] == [None] * 3
    # However many requests were given up meanwhile, for that reason.
    sut.failures.requests = 1000
    assert dog.reason_to_end(2.0) is None
    assert dog.reason_to_end(2.25) == "the server is gone"


def test_failures_that_are_not_fatal_end_nothing_while_others_are_answered() -> None:
    sut = FakeSut(Failures(samples=63 * 8, requests=63, first="InferenceError: out of luck"))
    dog = Watchdog(JOB, sut)
    for now in (0.0, 60.0, 600.0):
        sut.completed_samples += 1
        assert dog.reason_to_end(now) is None


def test_nothing_but_failures_for_five_seconds_ends_the_test() -> None:
    sut = FakeSut(completed_samples=100)
    dog = Watchdog(JOB, sut)
    # A slow model has done nothing wrong.
    assert [dog.reason_to_end(now) for now in (0.0, 300.0)] == [None] * 2
    sut.failures, sut.completed_samples = Failures(samples=8, requests=1), 108
    assert [dog.reason_to_end(now) for now in (300.25, 305.0)] == [None] * 2
    sut.failures, sut.completed_samples = Failures(samples=16, requests=2), 116
    assert dog.reason_to_end(305.25) == "2 requests failed, and no other was answered in 5 s"


def test_64_failed_requests_end_the_test_at_once() -> None:
    assert Watchdog(JOB, FakeSut(Failures(64, 64))).reason_to_end(0.0) == "64 requests failed"


def test_a_request_without_an_answer_ten_seconds_after_its_deadline_is_lost() -> None:
    sut = FakeSut()
    dog = Watchdog(JOB, sut)
    sut.slots[1] = FakeSlot((7,), uses=3)
    assert [dog.reason_to_end(now) for now in (100.0, 130.0, 170.0)] == [None] * 3
    assert dog.reason_to_end(170.4) == "a request was lost: no answer in 70 s"


def test_a_slot_that_is_used_again_is_not_the_same_request() -> None:
    sut = FakeSut()
    dog = Watchdog(JOB, sut)
    sut.slots[0] = FakeSlot((7,), uses=1)
    assert dog.reason_to_end(0.0) is None
    sut.slots[0] = FakeSlot((8,), uses=2)
    assert [dog.reason_to_end(now) for now in (69.0, 71.0, 139.0)] == [None] * 3
    assert dog.reason_to_end(139.5) == "a request was lost: no answer in 70 s"


def test_a_slot_that_was_idle_meanwhile_has_lost_nothing() -> None:
    sut = FakeSut()
    dog = Watchdog(JOB, sut)
    sut.slots[0] = FakeSlot((7,), uses=1)
    assert dog.reason_to_end(0.0) is None
    sut.slots[0] = FakeSlot(uses=1)
    assert dog.reason_to_end(500.0) is None
    sut.slots[0] = FakeSlot((8,), uses=2)
    assert dog.reason_to_end(1000.0) is None


def test_a_finished_test_ends_the_watchdog_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_INTERVAL_S", 0.001)
    job = dataclasses.replace(JOB, outcome=str(tmp_path / "outcome.json"))
    sut = FakeSut(Failures(1, 1))
    sut.slots[0] = FakeSlot((7,), uses=1)
    dog = Watchdog(job, sut)
    dog.start()
    dog.stop()
    dog.join(30)
    assert not dog.is_alive()
    assert list(tmp_path.iterdir()) == []


class Latencies:
    """Stands for the timeline of a test: what was noted so far, in ms."""

    def __init__(self) -> None:
        self.ms: list[int] = []

    def latencies_ns(self, start: int = 0) -> np.ndarray:
        return np.array(self.ms[start:], np.uint64) * np.uint64(10**6)


# Of its queries, 21 may be over 100 ms.
PROBE = dataclasses.replace(JOB.plan, min_duration_ms=10_000, min_query_count=1, target_qps=100.0)


def test_a_bound_is_lost_with_one_query_more_over_it_than_may_be_in_the_end() -> None:
    timeline = Latencies()
    bound = Bound(PROBE, 21.0, timeline)
    assert not bound.is_lost()
    timeline.ms += [100] * 500 + [101] * 20
    assert not bound.is_lost()
    timeline.ms += [5, 300]
    assert not bound.is_lost()
    timeline.ms += [101]
    assert bound.is_lost()
    assert bound.is_lost()
    assert bound.tail_ns() == 101 * 10**6


def test_where_none_may_be_the_first_query_over_it_loses_a_bound() -> None:
    timeline = Latencies()
    bound = Bound(PROBE, 0, timeline)
    timeline.ms += [99, 100]
    assert not bound.is_lost()
    timeline.ms += [101]
    assert bound.is_lost()


LOST = """
import dataclasses, sys, threading, time
from harness.run.worker.job import Outcome
from harness.run.worker.timeline import Timeline
from tests.unit.run.worker.test_watchdog import JOB, Bound, FakeSlot, FakeSut, Watchdog
sut, timeline, folder = FakeSut(), Timeline(), sys.argv[1]
sut.slots[0] = FakeSlot((7,), uses=1)
def give_up():
    print("given up", flush=True)
    timeline.record(400 * 10**6, 400 * 10**6, 1)
    threading.Timer(0.5, sut.slots.clear).start()
sut.give_up = give_up
job = dataclasses.replace(JOB, log_dir=folder, outcome=folder + "/outcome.json")
dog = Watchdog(job, sut, Bound(JOB.plan, 0, timeline), Outcome(plan=JOB.plan, transport="shm"))
for ms in (101, 300):
    timeline.record(0, ms * 10**6, 1)
dog.start()
time.sleep(0.3)
dog.stop()
print("the test went on", flush=True)
"""


def test_a_probe_that_has_lost_its_bound_ends_when_no_request_is_under_way(tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    ended = subprocess.run(
        [sys.executable, "-c", LOST, str(tmp_path)],
        cwd=PROJECT_ROOT,
        timeout=60,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Not even where LoadGen ended meanwhile: what it heard of queries that were given up is no result.
    assert ended.stdout == "given up\n"
    assert ended.returncode == 1
    outcome = read_outcome(file)
    assert (outcome.error, outcome.failures.requests, outcome.cut_p99_ns) == ("", 0, 300 * 10**6)
    assert (outcome.plan, outcome.transport) == (JOB.plan, "shm")
    # Not what was given up: that took no time.
    assert timeline.load(tmp_path / "timeline.npz").completed_us.tolist() == [101_000, 300_000]


STUCK = """
import dataclasses, sys, threading
from tests.unit.run.worker.test_watchdog import JOB, Failures, FakeSut, Watchdog
sut = FakeSut(Failures(65, 64, "InferenceError: out of luck", (5, 6)))
Watchdog(dataclasses.replace(JOB, outcome=sys.argv[1]), sut).start()
threading.Event().wait()
"""


def test_a_process_that_is_stuck_in_its_test_ends_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, str(file)], cwd=PROJECT_ROOT, timeout=120, check=False
    )
    assert ended.returncode == 3
    outcome = read_outcome(file)
    assert outcome.error == "64 requests failed; first failure: InferenceError: out of luck"
    assert (outcome.failures.samples, outcome.failures.requests) == (65, 64)

import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from harness.machine.paths import PROJECT_ROOT
from harness.machine.threads import in_threads


def test_results_come_in_order_whatever_order_they_are_made_in() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number < 2 else 0)
        return number * 10

    assert list(in_threads(slow_at_first, range(50), 4)) == [number * 10 for number in range(50)]


def test_no_items_are_no_work() -> None:
    assert list(in_threads(str, [], 3)) == []


def test_work_is_shared_between_as_many_threads_as_asked_for() -> None:
    barrier = threading.Barrier(3, timeout=60)

    def meet(_: int) -> int:
        barrier.wait()
        return threading.get_ident()

    assert len(set(in_threads(meet, range(3), 3))) == 3


def test_an_exception_comes_out_at_the_callers_and_ends_the_rest() -> None:
    done: list[int] = []

    def fail_at_5(number: int) -> None:
        if number == 5:
            raise ValueError("five")
        done.append(number)
        time.sleep(0.001)

    with pytest.raises(ValueError, match="five"):
        list(in_threads(fail_at_5, range(10_000), 2))
    assert len(done) < 5000


def test_closing_early_ends_the_threads() -> None:
    before = threading.active_count()
    with closing(in_threads(lambda _: time.sleep(0.001), range(10_000), 3)) as made:
        next(made)
    assert threading.active_count() == before


INTERRUPTED = """
import signal, sys, time
from harness.machine.threads import in_threads
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    for _ in in_threads(lambda n: n, range(10**9), 2):
        pass
except KeyboardInterrupt:
    print("ended")
"""


def test_ctrl_c_ends_it_at_any_moment() -> None:
    for step in range(20):
        ended = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, str(0.05 + step * 0.0017)],
            cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.stdout == "ended\n", ended.stderr

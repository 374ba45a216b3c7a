import os
import subprocess
import sys
import time

import pytest

from harness.machine.kernel import cpu_seconds


def test_cpu_time_of_another_process_is_what_it_says_itself() -> None:
    code = (
        "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ninput()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        its_own = float(child.stdout.readline())
        assert cpu_seconds(child.pid) == pytest.approx(its_own, abs=0.1)
        child.kill()


def test_less_than_a_clock_tick_is_not_nothing() -> None:
    before = cpu_seconds(os.getpid())
    deadline = time.process_time() + 0.0005
    while time.process_time() < deadline:
        pass
    assert 0.0005 <= cpu_seconds(os.getpid()) - before < 0.1

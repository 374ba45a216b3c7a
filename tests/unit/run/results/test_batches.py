"""Offline's batches: how long each took, and who was idle."""

import numpy as np
import pytest

from harness.run.results import batches
from harness.run.worker.timeline import Recorded


def recorded(completed_ms: list[int], samples: int = 8) -> Recorded:
    count = len(completed_ms)
    completed_us = np.array(completed_ms, np.uint32) * 1000
    return Recorded(np.zeros(count, np.uint32), completed_us, np.full(count, samples, np.uint32))


def test_a_batch_took_from_its_instances_answer_before_it() -> None:
    # Two instances, a batch each 100 ms, the second one 40 ms behind; the first batches took 30 ms more.
    found = batches.of_test(recorded([130, 170, 230, 270, 330, 370, 430, 470]), 2)
    assert found.took_us.tolist() == [130_000, 170_000, *[100_000] * 6]
    assert found.usual.tolist() == [100_000] * 6
    assert found.are_enough
    # 30 and 70 ms late; at the end the first one waits for 40 ms.
    assert found.start_up_us == pytest.approx(50_000)
    assert found.tail_us == pytest.approx(20_000)
    assert found.more == pytest.approx(70 / 400)


def test_order_of_completion_is_no_matter() -> None:
    assert batches.of_test(recorded([300, 100, 200]), 1).took_us.tolist() == [100_000] * 3


def test_requests_that_the_server_joined_are_one_batch() -> None:
    together = [at + more for at in (100, 200, 300) for more in (0, 1, 2)]
    assert batches.of_test(recorded(together), 1, 3).took_us.tolist() == [102_000, 100_000, 100_000]


def test_there_are_as_many_batches_as_triton_counted_however_close_two_were_answered() -> None:
    # As a detector on two instances was: two batches within 67 ms, and two of two requests each.
    answered = [554, 620, 1324, 1751, 1752, 1978, 2399, 2664, 2665]
    found = batches.of_test(recorded(answered), 2, 7)
    assert (found.ended_us / 1000).tolist() == [554, 620, 1324, 1752, 1978, 2399, 2665]
    # One more than there were requests of ours.
    assert len(batches.of_test(recorded(answered), 2, 10).ended_us) == 9


@pytest.mark.parametrize("instances", [1, 2, 64])
def test_one_batch_tells_nothing_of_idle_time(instances: int) -> None:
    found = batches.of_test(recorded([9]), instances)
    assert not found.are_enough
    assert found.usual.tolist() == [9_000]
    assert (found.start_up_us, found.tail_us, found.more) == (0, 0, 0)

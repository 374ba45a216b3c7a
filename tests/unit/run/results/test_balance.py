"""How several servers shared a test, in figures and in words."""

import pytest

from harness.run.results import balance
from harness.run.worker.job import Share
from harness.triton.statistics import ServerStatistics


def share(url: str, samples: int, transport: str = "grpc") -> Share:
    """Batches of four requests, each of which waited 2 ms and was 5 ms in its batch."""
    times = {
        "queue_ns": 2_000_000 * samples,
        "compute_input_ns": 0,
        "compute_infer_ns": 4_000_000 * samples,
        "compute_output_ns": 1_000_000 * samples,
    }
    statistics = ServerStatistics(
        samples, 0, samples, samples // 4, executions_by_batch_size={4: samples // 4}, **times
    )
    return Share(url, transport, statistics)


def test_each_server_has_its_share_and_its_own_times() -> None:
    first, last = balance.parts([share("a:1", 100, "shm"), share("b:1", 300)])
    assert (first.url, first.transport, first.samples, first.share) == ("a:1", "shm", 100, 0.25)
    assert (last.url, last.transport, last.samples, last.share) == ("b:1", "grpc", 300, 0.75)
    for part in (first, last):
        assert (part.mean_batch_size, part.queue_ms, part.batch_ms) == pytest.approx((4, 2, 5))


def test_the_balance_is_told_where_there_are_several() -> None:
    assert balance.line([share("a:1", 100), share("b:1", 108), share("c:1", 92)]) == (
        "balance: 3 servers answered 30.7% to 36.0% of the samples each (even is 33.3%)"
    )
    assert balance.line([]) == ""


def test_a_server_that_was_asked_nothing_has_no_times() -> None:
    idle, _ = balance.parts([share("a:1", 0), share("b:1", 8)])
    assert (idle.share, idle.queue_ms, idle.batch_ms) == (0, 0, 0)

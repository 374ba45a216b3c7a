import numpy as np
import pytest

from harness.errors import InferenceError
from harness.run.mlperf.rounds import Scenario
from harness.run.worker import timeline
from harness.run.worker.timeline import Recorded, Timeline

SECOND_NS = 10**9


def test_what_was_recorded_is_read_back_in_us_since_the_first_query(tmp_path):
    recorder = Timeline()
    recorder.record(5 * SECOND_NS + 2_000, 5 * SECOND_NS + 9_000, 4)
    recorder.record(5 * SECOND_NS, 5 * SECOND_NS + 12_999, 3)
    recorder.save(tmp_path / timeline.FILE_NAME)
    with np.load(tmp_path / timeline.FILE_NAME) as arrays:
        assert {name: (values.tolist(), values.dtype) for name, values in arrays.items()} == {
            "issued_us": ([2, 0], np.uint32),
            "completed_us": ([9, 12], np.uint32),
            "samples": ([4, 3], np.uint32),
        }
    assert timeline.load(tmp_path / timeline.FILE_NAME).completed_us.tolist() == [9, 12]


@pytest.mark.parametrize("count", [0, 1, timeline._CHUNK_RECORDS, 2 * timeline._CHUNK_RECORDS + 1])
def test_a_timeline_grows_and_loses_nothing(tmp_path, count):
    recorder = Timeline()
    for number in range(count):
        recorder.record(number * 1000, number * 1000 + 7000, number)
    recorder.save(tmp_path / "t.npz")
    recorded = timeline.load(tmp_path / "t.npz")
    assert np.array_equal(recorded.issued_us, np.arange(count))
    assert np.array_equal(recorded.completed_us, np.arange(count) + 7)
    assert np.array_equal(recorded.samples, np.arange(count))


@pytest.mark.parametrize("count", [0, 1, timeline._CHUNK_RECORDS, timeline._CHUNK_RECORDS + 2])
def test_the_latencies_so_far_are_read_while_more_are_noted(count):
    recorder = Timeline()
    seen = []
    for number in range(count):
        recorder.record(0, number, 1)
        if number % 1000 == 7:
            seen += recorder.latencies_ns(len(seen)).tolist()
            assert len(seen) == number + 1
    seen += recorder.latencies_ns(len(seen)).tolist()
    assert seen == recorder.latencies_ns().tolist() == list(range(count))
    assert recorder.latencies_ns(count).tolist() == []


def test_a_test_of_more_than_71_minutes_does_not_start_again_at_zero(tmp_path):
    recorder = Timeline()
    recorder.record(0, 1_000, 1)
    recorder.record(4300 * SECOND_NS, 4301 * SECOND_NS, 1)
    recorder.save(tmp_path / "t.npz")
    assert timeline.load(tmp_path / "t.npz").completed_us.tolist() == [1, 4_301_000_000]


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_timeline_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "t.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InferenceError, match=r"t\.npz cannot be read"):
        timeline.load(path)


@pytest.mark.parametrize("completed_us", [[5], [[5, 6]], [5.0, float("nan")], [1, 9]])
def test_a_timeline_that_no_test_can_have_left_is_refused(tmp_path, completed_us):
    issued_us = np.array([2, 3], np.uint32)
    columns = np.array(completed_us)
    columns = columns.astype(np.uint32) if columns.dtype.kind == "i" else columns
    np.savez(tmp_path / "t.npz", issued_us=issued_us, completed_us=columns, samples=issued_us)
    with pytest.raises(InferenceError, match="not of requests and their answers"):
        timeline.load(tmp_path / "t.npz")


def test_a_timeline_with_a_damaged_middle_is_named(tmp_path):
    numbers = np.arange(5000, dtype=np.uint32) * 7919 % 4999
    np.savez_compressed(tmp_path / "t.npz", issued_us=numbers, completed_us=numbers, samples=numbers)
    content = bytearray((tmp_path / "t.npz").read_bytes())
    content[200:260] = b"\xff" * 60
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(InferenceError, match=r"t\.npz cannot be read"):
        timeline.load(tmp_path / "t.npz")


def recorded(*requests):
    return Recorded(*(np.array(column, np.uint32) for column in zip(*requests, strict=True)))


def latencies(scenario, *requests):
    return [values.tolist() for values in timeline.query_latencies_us(recorded(*requests), scenario)]


def test_a_multistream_query_takes_until_its_last_request_is_answered():
    requests = [(0, 50, 4), (0, 40, 4), (60, 90, 4), (60, 130, 4)]
    assert latencies(Scenario.MULTI_STREAM, *requests) == [[50, 70], [1, 1]]


@pytest.mark.parametrize("scenario", [Scenario.SINGLE_STREAM, Scenario.SERVER])
def test_queries_that_are_issued_in_the_same_microsecond_stay_two(scenario):
    assert latencies(scenario, (3, 5, 1), (3, 9, 1)) == [[2, 6], [1, 1]]


def test_an_offline_request_counts_once_for_each_of_its_samples():
    assert latencies(Scenario.OFFLINE, (0, 50, 4), (0, 70, 1)) == [[50, 70], [4, 1]]


@pytest.mark.parametrize("scenario", Scenario)
def test_a_test_without_a_request_has_no_latencies(tmp_path, scenario):
    Timeline().save(tmp_path / "t.npz")
    values, weights = timeline.query_latencies_us(timeline.load(tmp_path / "t.npz"), scenario)
    assert len(values) == len(weights) == 0

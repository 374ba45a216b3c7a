"""What is wrong with a test's books, told by made-up servers."""

import dataclasses
from typing import Any

import pytest

from harness.errors import InferenceError, ServerError
from harness.run.worker.books import (
    Answered,
    Book,
    Ledger,
    check_rehearsed,
    fault,
    other_server,
    seen,
    unseen,
)

BOOK = Book(
    url="a:1",
    answered_samples=80,
    answered_requests=40,
    sent_again=0,
    counted_samples=80,
    counted_requests=40,
    executions=20,
    cache_hits=0,
    rehearsed_samples=7,
)
SEVERAL = "this address is several servers (a load balancer?): name each with --url"


def book(**changes: Any) -> Book:
    return dataclasses.replace(BOOK, **changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"answered_samples": 0, "counted_samples": 0, "executions": 0}, ""),
        (
            {"counted_samples": 277, "counted_requests": 237},
            "others used this model meanwhile (197 requests): a:1 counted 277 samples and answered 80 to us",
        ),
        (
            {"counted_samples": 0, "counted_requests": 0, "executions": 0},
            f"{SEVERAL}; a:1 counted 0 samples and answered 80; or else somebody loaded the model again "
            "meanwhile",
        ),
        (
            {"counted_samples": -300},
            f"{SEVERAL}; a:1 counted -300 samples and answered 80; or else somebody loaded the model again "
            "meanwhile",
        ),
        (
            {"counted_samples": 30, "cache_hits": 25},
            "a:1 answered 25 requests from a response cache, which MLPerf forbids: switch it off",
        ),
        ({"executions": 0}, "a:1 answered 80 samples and executed the model for none of them"),
        # Carried out twice, and answered once.
        ({"sent_again": 1, "counted_samples": 82, "counted_requests": 41}, ""),
        (
            {"sent_again": 1, "counted_samples": 83, "counted_requests": 42},
            "others used this model meanwhile (1 requests): a:1 counted 83 samples and answered 80 to us",
        ),
    ],
)
def test_a_book_that_is_wrong_says_of_which_kind(changes: dict[str, int], why: str) -> None:
    assert fault([book(**changes)]) == why
    # Whichever of the servers' it is.
    assert fault([BOOK, book(**changes), BOOK]) == why


def test_one_server_by_two_names_counts_the_sum_of_both() -> None:
    books = [
        book(counted_samples=100, counted_requests=50),
        book(url="c:1"),
        book(
            url="b:1",
            answered_samples=20,
            answered_requests=10,
            counted_samples=100,
            counted_requests=50,
        ),
    ]
    assert fault(books) == "a:1 and b:1 are one server: name it once"


def test_before_a_test_others_may_come_and_go_but_nothing_may_be_missing() -> None:
    check_rehearsed([BOOK, book(counted_samples=81, counted_requests=41)])
    with pytest.raises(InferenceError, match="several servers") as missed:
        check_rehearsed([BOOK, book(url="b:1", counted_samples=79)])
    assert "b:1 counted 79 samples and answered 80" in str(missed.value)


def test_one_server_by_two_names_is_found_out_before_the_test() -> None:
    both = {"counted_samples": 14, "counted_requests": 14, "answered_samples": 7, "answered_requests": 7}
    twins = [book(url="10.0.0.1:1", **both), book(url="c:1"), book(url="[fd00::1]:1", **both)]
    with pytest.raises(InferenceError, match=r"^10.0.0.1:1 and \[fd00::1\]:1 are one server: name it once$"):
        check_rehearsed(twins)
    # Two that others used, and as much.
    check_rehearsed([book(counted_samples=81), book(url="b:1", counted_samples=81)])


def test_a_server_that_does_not_know_the_mapped_memory_is_another_one() -> None:
    failure = "RequestFailed: INVALID_ARGUMENT: Unable to find shared memory region: 'mlperf-samples-1-2'"
    assert other_server(failure, "mlperf-samples-1-2", [], "an_entry").startswith(SEVERAL)
    assert other_server(failure, "mlperf-samples-1", [], "an_entry") == ""
    assert other_server("InferenceError: out of luck", "mlperf-samples-1-2", [], "an_entry") == ""


@pytest.mark.parametrize(
    ("ready", "why"),
    [
        ([True, True], SEVERAL),
        ([True, False], "the server is ending, or somebody unloaded an_entry"),
        ([True, None], "the server is ending, or somebody unloaded an_entry"),
    ],
    ids=["there", "unloaded", "gone"],
)
def test_where_the_model_is_not_known_it_counts_whether_those_who_loaded_it_have_it_still(
    ready: list[bool | None], why: str
) -> None:
    failure = "Triton at a:1 gives no statistics: Request for unknown model: 'an_entry' is not found"
    clients = [FakeClient(is_ready=each) for each in ready]
    assert other_server(failure, "mlperf-samples-1-2", clients, "an_entry").startswith(why)


def reading(requests: int, samples: int, executions: int, cache_hits: int = 0) -> dict[str, Any]:
    """As protobuf's JSON has it: no zeros, and 64-bit numbers as text."""
    stats = {"success": {"count": str(requests)}, "cache_hit": {"count": str(cache_hits)}}
    fields = {"inference_count": str(samples), "execution_count": str(executions), "inference_stats": stats}
    return {name: value for name, value in fields.items() if value != "0"}


class FakeClient:
    """Gives its readings one after the other, then says that it is gone; so where `is_ready` is None."""

    url = "a:1"
    sent_again = 0

    def __init__(self, *readings: dict[str, Any], is_ready: bool | None = None) -> None:
        self.readings = list(readings)
        self._is_ready = is_ready
        self.waited_for: list[int] = []

    def is_model_ready(self, _entry: str) -> bool:
        if self._is_ready is None:
            raise ServerError("Triton at a:1 does not answer: gone")
        return self._is_ready

    def statistics(self, _entry: str, samples: int = 0) -> dict[str, Any]:
        self.waited_for.append(samples)
        if not self.readings:
            raise ServerError("Triton at a:1 gives no statistics: gone")
        return self.readings.pop(0)


def test_a_ledger_closes_a_book_of_what_was_answered_since_the_last_one() -> None:
    client = FakeClient(reading(10, 100, 5), reading(17, 107, 12), reading(57, 187, 32, 3))
    ledger = Ledger(client, "an_entry")
    client.sent_again = 2
    rehearsal, _ = ledger.close(Answered(7, 7))
    client.sent_again = 5
    test, statistics = ledger.close(Answered(80, 40))
    assert rehearsal == Book("a:1", 7, 7, 2, 7, 7, 7, 0, 0)
    assert test == book(sent_again=3, cache_hits=3)
    assert (statistics.requests, statistics.samples, statistics.executions) == (40, 80, 20)
    # Triton counts a moment later than it answers.
    assert client.waited_for == [0, 107, 187]
    with pytest.raises(ServerError):
        ledger.close(Answered())


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (reading(57, 187, 32), ""),
        # Others before or after the test are none of its business.
        (reading(60, 190, 35), ""),
        (
            reading(10, 100, 5),
            f"{SEVERAL}; a:1 answered 87 samples, and 0 on the connection that set the model up; or else "
            "somebody loaded the model again meanwhile",
        ),
        (None, "how many samples Triton counted is not known after the test: Triton at a:1 gives no "),
    ],
)
def test_the_connection_that_loaded_the_model_must_have_seen_the_whole_test(
    after: dict[str, Any] | None, why: str
) -> None:
    client = FakeClient(reading(10, 100, 5), *([after] if after else []))
    before = seen([client], "an_entry")
    found = unseen([client], "an_entry", before, [BOOK])
    assert found.startswith(why)
    assert bool(found) == bool(why)

"""The books of a test: samples that Triton counted against those that it answered to us, server by server.

They must be the same, whatever stands between us and the server. What a connection asks that reaches another
server than the one that is asked for its statistics is missing there, and what others ask is too many. So it
is of requests that were answered; a single one that failed makes the test fail anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError, InferenceError
from harness.triton import statistics
from harness.triton.client import TritonClient
from harness.triton.statistics import ServerStatistics

_SEVERAL = "this address is several servers (a load balancer?): name each with --url"


@dataclass(frozen=True)
class Answered:
    """What was answered to us."""

    samples: int = 0
    requests: int = 0
    """Those that failed are counted too."""

    def __add__(self, other: "Answered") -> "Answered":
        return Answered(self.samples + other.samples, self.requests + other.requests)


@dataclass(frozen=True)
class Book:
    """One server's account of a test, and ours."""

    url: str
    answered_samples: int
    """To us, by all client processes; without those that failed."""
    answered_requests: int
    sent_again: int
    """Requests that a server or proxy gave back: it may have carried them out all the same."""
    counted_samples: int
    """By Triton, of this model: it inferred so many."""
    counted_requests: int
    executions: int
    cache_hits: int
    rehearsed_samples: int
    """That it answered to us before the test: inputs of the self-test, and the calibration's."""


class Ledger:
    """Keeps one server's books: first of what precedes a test, then of the test."""

    def __init__(self, client: TritonClient, entry: str) -> None:
        """Begin.

        Raises:
            ServerError: the server gives no statistics.
        """
        self._client, self._entry = client, entry
        self._before, self._sent_again = client.statistics(entry), client.sent_again
        self._rehearsed = 0

    def close(self, answered: Answered) -> tuple[Book, ServerStatistics]:
        """The book, and Triton's whole account, of what was `answered` since the last one.

        Raises:
            ServerError: the server gives no statistics any more.
        """
        client, before, sent_again = self._client, self._before, self._sent_again
        after = client.statistics(self._entry, statistics.samples(before) + answered.samples)
        counted = statistics.difference(before, after)
        book = Book(
            url=client.url,
            answered_samples=answered.samples,
            answered_requests=answered.requests,
            sent_again=client.sent_again - sent_again,
            counted_samples=counted.samples,
            counted_requests=counted.requests,
            executions=counted.executions,
            cache_hits=counted.cache_hits,
            rehearsed_samples=self._rehearsed,
        )
        self._before, self._sent_again = after, client.sent_again
        self._rehearsed += answered.samples
        return book, counted


def check_rehearsed(books: Sequence[Book]) -> None:
    """Before a test: end what cannot succeed.

    Others may have come and gone; the test's own books will tell.

    Raises:
        InferenceError: Triton counted less than it answered, or two servers are one.
    """
    why = fault([book for book in books if book.counted_samples < book.answered_samples])
    if why := why or next((twins for book in books if (twins := _twins(book, books))), ""):
        raise InferenceError(why)


def fault(books: Sequence[Book]) -> str:
    """What is wrong with the books of a test in which no request failed, or nothing."""
    return next((why for book in books if (why := _fault(book, books))), "")


def _fault(book: Book, books: Sequence[Book]) -> str:
    counts = f"{book.url} counted {book.counted_samples} samples and answered {book.answered_samples}"
    if book.cache_hits:
        return (
            f"{book.url} answered {book.cache_hits} requests from a response cache, which MLPerf forbids: "
            "switch it off"
        )
    others = book.counted_requests - book.answered_requests - book.sent_again
    if book.counted_samples > book.answered_samples and others > 0:
        if twins := _twins(book, books):
            return twins
        return f"others used this model meanwhile ({others} requests): {counts} to us"
    if book.counted_samples < book.answered_samples:
        return f"{_SEVERAL}; {counts}; or else somebody loaded the model again meanwhile"
    if book.answered_samples and not book.executions:
        return f"{book.url} answered {book.answered_samples} samples and executed the model for none of them"
    return ""


def _twins(book: Book, books: Sequence[Book]) -> str:
    """What is wrong if a server was asked by several addresses: each counts what was answered to all."""
    twins = [other for other in books if other.counted_samples == book.counted_samples > 0]
    if len(twins) < 2 or sum(twin.answered_samples for twin in twins) != book.counted_samples:
        return ""
    return f"{' and '.join(twin.url for twin in twins)} are one server: name it once"


def other_server(failure: str, segment: str, clients: Sequence[TritonClient], entry: str) -> str:
    """What is wrong where a request failed at a server that does not know what was set up for it, or nothing.

    Args:
        failure: the first one, or what kept a test from being started.
        segment: shared memory that was mapped, for this job alone: by another server, then.
        clients: of each server: they have loaded the model.
        entry: its name.
    """
    if f"find shared memory region: '{segment}'" in failure:
        return f"{_SEVERAL}; one has mapped the shared memory, another was asked for its samples"
    if "Request for unknown model" in failure:
        # Which a server also says that was told to end.
        if not all(_has_model(client, entry) for client in clients):
            return f"the server is ending, or somebody unloaded {entry}"
        return (
            f"{_SEVERAL}; one has loaded the model, another was asked for it; or else somebody loaded it "
            "again meanwhile"
        )
    return ""


def _has_model(client: TritonClient, entry: str) -> bool:
    try:
        return client.is_model_ready(entry)
    except HarnessError:
        return False


def seen(clients: Sequence[TritonClient], entry: str) -> list[dict[str, Any]]:
    """Statistics of each server, by connections that are not the worker's; for `unseen`.

    Raises:
        ServerError: one gives none.
    """
    return [client.statistics(entry) for client in clients]


def unseen(
    clients: Sequence[TritonClient], entry: str, before: Sequence[dict[str, Any]], books: Sequence[Book]
) -> str:
    """What is wrong where the worker was not at the servers that these clients reach, or nothing.

    Args:
        clients: of each server: they have loaded the model, and know its settings.
        entry: its name.
        before: `seen` before the worker was started.
        books: the worker's.
    """
    for client, earlier, book in zip(clients, before, books, strict=True):
        ours = book.rehearsed_samples + book.answered_samples
        wanted = statistics.samples(earlier) + ours
        try:
            found = statistics.samples(client.statistics(entry, wanted))
        except HarnessError as gone:
            return not_known(gone)
        if found < wanted:
            grown = found - statistics.samples(earlier)
            return (
                f"{_SEVERAL}; {book.url} answered {ours} samples, and {grown} on the connection that set the "
                "model up; or else somebody loaded the model again meanwhile"
            )
    return ""


def not_known(reason: HarnessError) -> str:
    """Why a test does not count whose books cannot be closed."""
    return f"how many samples Triton counted is not known after the test: {reason}"

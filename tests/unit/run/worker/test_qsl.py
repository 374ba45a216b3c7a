import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.run.worker.qsl import SampleLibrary


class RowsStore:
    """Keeps rows in a list; requests are not needed here."""

    transport = "none"

    def __init__(self) -> None:
        self.rows: list[int] = []

    def fill(self, samples, indices) -> None:
        self.rows = [int(samples[index]) for index in indices]

    def request(self, first_row: int, batch: int) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def requests_of(library: SampleLibrary, query: list[int], limit: int) -> list[list[int]]:
    """The samples that each request of a query would carry."""
    store = library.store
    found, start = [], 0
    while start < len(query):
        row, count = library.first_run(query, start, limit)
        found.append(store.rows[row : row + count])
        start += count
    return found


def loaded(indices: list[int]) -> SampleLibrary:
    library = SampleLibrary(np.arange(1000), RowsStore())
    library.load(indices)
    return library


@given(
    loaded_set=st.lists(st.integers(0, 999), min_size=1, max_size=40),
    picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=60),
    limit=st.integers(1, 16),
)
def test_every_sample_of_a_query_is_sent_once_and_in_order(loaded_set, picks, limit) -> None:
    query = [loaded_set[pick % len(loaded_set)] for pick in picks]
    requests = requests_of(loaded(loaded_set), query, limit)
    assert [sample for request in requests for sample in request] == query
    assert max(len(request) for request in requests) <= limit


def test_an_offline_query_is_cut_into_full_batches() -> None:
    order = [7, 3, 9, 1, 5, 0, 2, 8]
    assert requests_of(loaded(order), order * 2, 4) == [[7, 3, 9, 1], [5, 0, 2, 8]] * 2


def test_a_multi_stream_query_over_the_end_of_the_set_is_one_request() -> None:
    # LoadGen loads the first seven samples of the set once more at its end.
    order = list(range(10, 20))
    library = loaded(order + order[:7])
    query = (order + order[:7])[6:14]
    assert requests_of(library, query, 8) == [query]


def test_scattered_samples_are_sent_one_by_one() -> None:
    assert requests_of(loaded([0, 1, 2, 3]), [3, 1, 0, 2], 4) == [[3], [1], [0], [2]]

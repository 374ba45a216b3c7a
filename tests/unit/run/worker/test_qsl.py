import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ServerError
from harness.machine.kernel import SHM_DIR
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.run.worker.qsl import (
    MessageStore,
    SampleLibrary,
    SharedMemoryStore,
    Stores,
    batch_that_fits,
    open_stores,
)
from tests.plans import any_job, any_plan

VARIANT = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]


class RowsStore:
    """Keeps rows in a list; requests are not needed here."""

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


class MappingClient:
    """A server that maps memory, if it can: a real one opens the file of the name that it is given."""

    def __init__(self, url: str, can_map: bool) -> None:
        self.url, self._can_map = url, can_map
        self.mapped: list[str] = []

    def refusal_of_shared_memory(self, name: str, size: int) -> str:
        if not self._can_map:
            return "no"
        assert (SHM_DIR / name).stat().st_size == size
        self.mapped.append(name)
        return ""

    def unregister_shared_memory(self, name: str) -> None:
        if name in self.mapped:
            self.mapped.remove(name)


@pytest.mark.parametrize(
    ("transport", "can_map", "found"),
    [
        ("auto", (True, True), "shm"),
        ("auto", (True, False, True), "shm+grpc"),
        ("auto", (False, True), "grpc+shm"),
        ("auto", (False, False), "grpc"),
        ("grpc", (True, True), "grpc"),
        ("shm", (True, True), "shm"),
    ],
)
def test_samples_lie_in_shared_memory_for_the_servers_that_can_map_it(
    transport: str, can_map: tuple[bool, ...], found: str
) -> None:
    segment = f"mlperf-test-qsl-{os.getpid()}"
    job = any_job(any_plan(), transport=transport, segment=segment)
    clients = [MappingClient(f"{number}:1", can) for number, can in enumerate(can_map)]
    stores = open_stores(job, clients, VARIANT, rows=2)
    assert "+".join(dict.fromkeys(store.transport for store in stores)) == found
    together = Stores(stores)
    for client, store in zip(clients, stores, strict=True):
        is_shared = isinstance(store, SharedMemoryStore)
        assert client.mapped == [segment] * is_shared
        assert is_shared == (client._can_map and transport != "grpc")
    # Servers of one kind have one store.
    assert len({id(store) for store in stores}) == len(found.split("+"))
    together.fill(np.zeros((2, *VARIANT.input.shape), VARIANT.input.dtype.value), [1, 0])
    for store in stores:
        assert store.request(1, 1)
    together.close()
    assert [client.mapped for client in clients] == [[] for _ in clients]
    assert not (SHM_DIR / segment).exists()


def test_what_travels_in_messages_is_no_more_than_they_hold() -> None:
    # 602,112 bytes each.
    messages, shared = MessageStore("an_entry", VARIANT, 65536), object.__new__(SharedMemoryStore)
    assert batch_that_fits([shared], VARIANT, 65536) == 65536
    assert batch_that_fits([shared, messages], VARIANT, 65536) == 3566
    assert batch_that_fits([messages], VARIANT, 3566) == 3566


def test_shared_memory_that_was_asked_for_must_be_mapped_by_every_server() -> None:
    job = any_job(any_plan(), transport="shm", segment=f"mlperf-test-qsl-{os.getpid()}")
    clients = [MappingClient("a:1", True), MappingClient("b:1", False)]
    with pytest.raises(ServerError, match="the server at b:1 cannot map this machine's shared memory"):
        open_stores(job, clients, VARIANT, rows=2)
    assert clients[0].mapped == []

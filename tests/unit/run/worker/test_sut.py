"""The hot path between a made-up LoadGen and made-up servers: real slots, a real event loop on its thread."""

import asyncio
import contextlib
import ctypes
import functools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InferenceError, RequestFailed
from harness.run.worker.endpoints import event_loop
from harness.run.worker.qsl import SampleLibrary
from harness.run.worker.sut import Slot, Sut

PAYLOAD_FLOATS = 2
HANG_S = 30
"""Nothing takes this long: whoever waits for it would wait for ever."""
UNKNOWN = 999
"""A sample that was never loaded."""


class Fate(Enum):
    """What becomes of the request that begins with a sample."""

    ANSWERED = auto()
    ASK_RAISES = auto()
    FAILED = auto()
    READ_RAISES = auto()
    ASK_FINDS_IT_GONE = auto()
    GONE = auto()


NOT_FATAL = (Fate.ANSWERED, Fate.ASK_RAISES, Fate.FAILED, Fate.READ_RAISES)
FATAL = (Fate.ASK_FINDS_IT_GONE, Fate.GONE)


def payload_of(sample: int) -> bytes:
    """Two numbers, one, or as of an image without a detection none."""
    return np.full(sample % 3, sample, np.float32).tobytes()


class RowsStore:
    """Keeps rows in a list."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def fill(self, samples, indices) -> None:
        self.rows = [int(samples[index]) for index in indices]

    def close(self) -> None:
        raise NotImplementedError


def library_of(loaded: Sequence[int]) -> SampleLibrary:
    library = SampleLibrary(np.arange(100), RowsStore())
    library.load(list(loaded))
    return library


@dataclass
class Servers:
    """What all endpoints of a test share."""

    fates: Mapping[int, Fate] = field(default_factory=dict)
    delays: Sequence[int] = (0,)
    """Turns of the event loop until the answer, of one request after the other."""
    is_held: bool = False
    """Whether answers wait until `release`."""
    is_gone: bool = False
    asked: list[tuple[int, ...]] = field(default_factory=list)
    asked_when_gone: int = 0
    answered_samples: int = 0


class FakeEndpoint:
    """Knows of a request what is on the wire: the rows that it points to."""

    def __init__(self, servers: Servers, library: SampleLibrary) -> None:
        self._servers, self._library = servers, library
        self._held: list[functools.partial[None]] = []
        self.under_way = self.most_under_way = 0

    def ask(self, slot: Slot) -> None:
        rows, fate = self._request(slot)
        if fate == Fate.ASK_RAISES:
            raise ZeroDivisionError("asked in vain")
        if fate == Fate.ASK_FINDS_IT_GONE:
            self._servers.is_gone = True
            raise RequestFailed("nobody there", is_fatal=True)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        answer = functools.partial(self._answer, slot, fate, np.array(rows, np.int64).tobytes())
        if self._servers.is_held:
            self._held.append(answer)
        else:
            delays = self._servers.delays
            _after(delays[len(self._servers.asked) % len(delays)], answer)

    def release(self) -> None:
        self._held.pop(0)()

    def _answer(self, slot: Slot, fate: Fate, answer: bytes) -> None:
        self.under_way -= 1
        if fate == Fate.GONE:
            self._servers.is_gone = True
            slot.answered(RequestFailed("closed by the server", is_fatal=True))
        elif fate == Fate.FAILED:
            slot.answered(RequestFailed("out of luck", is_fatal=False))
        else:
            slot.answered(answer)

    def read(self, slot: Slot, answer: bytes) -> Sequence[int]:
        rows = np.frombuffer(answer, np.int64).tolist()
        if self._servers.fates.get(rows[0]) == Fate.READ_RAISES:
            raise InferenceError("malformed")
        self._servers.answered_samples += len(rows)
        # What an earlier request left there must not be taken for an answer.
        slot.payload[:] = -1
        for values, sample in zip(slot.payload, rows, strict=False):
            values[: sample % 3] = sample
        return [len(payload_of(sample)) for sample in rows]

    def answer_now(self, slot: Slot) -> Sequence[int]:
        rows, fate = self._request(slot)
        if fate in FATAL:
            self._servers.is_gone = True
            raise RequestFailed("nobody there", is_fatal=True)
        if fate in (Fate.ASK_RAISES, Fate.FAILED):
            raise ZeroDivisionError("asked in vain")
        return self.read(slot, np.array(rows, np.int64).tobytes())

    def _request(self, slot: Slot) -> tuple[list[int], Fate]:
        store = self._library.store
        assert isinstance(store, RowsStore)
        rows = store.rows[slot.row : slot.row + len(slot.indices)]
        self._servers.asked.append(tuple(rows))
        self._servers.asked_when_gone += self._servers.is_gone
        return rows, self._servers.fates.get(rows[0], Fate.ANSWERED)


def _after(turns: int, call: functools.partial[None]) -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(*(_after, turns - 1, call) if turns else (call,))


class FakeLoadGen:
    """Hears of completed samples, and copies their payloads from memory as LoadGen does."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.completed: list[tuple[tuple[int, ...], tuple[bytes, ...]]] = []
        """Response ids and payloads of each call."""
        self.recorded_samples = 0

    def complete(self, response_ids: Sequence[int], address: int, stride: int, sizes: Sequence[int]) -> None:
        payloads = tuple(
            ctypes.string_at(address + row * stride, size)
            for row, (_, size) in enumerate(zip(response_ids, sizes, strict=True))
        )
        with self._condition:
            self.completed.append((tuple(response_ids), payloads))
            self._condition.notify_all()

    def record(self, issued_ns: int, answered_ns: int, samples: int) -> None:
        assert 0 < issued_ns <= answered_ns
        self.recorded_samples += samples

    def wait(self, samples: int) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.ids()) >= samples, HANG_S)

    def ids(self) -> list[int]:
        return [one for response_ids, _ in self.completed for one in response_ids]

    def payloads(self) -> dict[int, bytes]:
        return {
            one: payload
            for ids, payloads in self.completed
            for one, payload in zip(ids, payloads, strict=True)
        }


@dataclass
class Stage:
    loop: asyncio.AbstractEventLoop
    servers: Servers
    endpoints: Sequence[FakeEndpoint]
    loadgen: FakeLoadGen
    sut: Sut
    issued: list[tuple[int, list[int]]] = field(default_factory=list)
    """First response id and samples of each query."""

    def issue(self, query: Sequence[int]) -> None:
        # Like LoadGen's: neither small nor the sample's index.
        first = 10_000 + sum(len(indices) for _, indices in self.issued)
        self.issued.append((first, list(query)))
        self.sut.issue(list(range(first, first + len(query))), list(query))

    def settle(self) -> None:
        """Let the event loop do what it was given so far."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(HANG_S)

    def release(self, endpoint: int = 0) -> None:
        self.loop.call_soon_threadsafe(self.endpoints[endpoint].release)
        self.settle()

    def under_way(self) -> list[int]:
        return [endpoint.under_way for endpoint in self.endpoints]


@contextlib.contextmanager
def staged(
    servers: Servers,
    loaded: Sequence[int],
    *,
    batch: int = 1,
    in_flight: int = 1,
    endpoints: int = 1,
    answers_now: bool = False,
    places: Sequence[str] = (),
) -> Iterator[Stage]:
    library, loadgen = library_of(loaded), FakeLoadGen()
    fakes = [FakeEndpoint(servers, library) for _ in range(endpoints)]
    with event_loop() as loop:
        sut = Sut(
            loop,
            fakes,
            library,
            loadgen.complete,
            payload_floats=PAYLOAD_FLOATS,
            batch=batch,
            in_flight=in_flight,
            answer_now=fakes[0].answer_now if answers_now else None,
            record=loadgen.record,
            places=places,
        )
        yield Stage(loop, servers, fakes, loadgen, sut)


def cut(query: Sequence[int], loaded: Sequence[int], batch: int) -> Iterator[list[int]]:
    """The requests of a query: as long as its samples stand beside each other, an unknown one alone."""
    request: list[int] = []
    for sample in query:
        follows = request and sample in loaded and request[-1] != UNKNOWN and len(request) < batch
        row = loaded.index(request[0]) + len(request) if follows else len(loaded)
        if request and loaded[row : row + 1] != [sample]:
            yield request
            request = []
        request.append(sample)
    yield request


@dataclass(frozen=True)
class Case:
    loaded: list[int]
    queries: list[list[int]]
    fates: dict[int, Fate]
    delays: list[int]
    batch: int
    in_flight: int
    endpoints: int
    answers_now: bool


@st.composite
def cases(draw: st.DrawFn, allowed: Sequence[Fate]) -> Case:
    loaded = draw(st.lists(st.integers(0, 99), min_size=1, max_size=10, unique=True))
    # LoadGen has the first of MultiStream's samples loaded once more at the end.
    loaded += loaded[: draw(st.integers(0, 7))]
    neighbours = st.integers(0, len(loaded) - 1).flatmap(
        lambda start: st.integers(start + 1, len(loaded)).map(lambda end: loaded[start:end])
    )
    scattered = st.lists(st.sampled_from([*loaded, UNKNOWN]), min_size=1, max_size=8)
    fates = st.dictionaries(st.sampled_from(loaded), st.sampled_from(allowed))
    answers_now = draw(st.booleans())
    return Case(
        loaded,
        draw(st.lists(neighbours | scattered, min_size=1, max_size=12)),
        draw(fates),
        draw(st.lists(st.integers(0, 9), min_size=1, max_size=5)),
        draw(st.integers(1, 5)),
        1 if answers_now else draw(st.integers(1, 4)),
        1 if answers_now else draw(st.integers(1, 3)),
        answers_now,
    )


@contextlib.contextmanager
def run(case: Case) -> Iterator[Stage]:
    """Issue all queries of a case, as fast as possible, and wait until each sample is answered."""
    with staged(
        Servers(case.fates, case.delays),
        case.loaded,
        batch=case.batch,
        in_flight=case.in_flight,
        endpoints=case.endpoints,
        answers_now=case.answers_now,
    ) as test:
        for query in case.queries:
            test.issue(query)
        total = sum(map(len, case.queries))
        if not case.answers_now:
            test.loadgen.wait(total)
            test.settle()
        # Whatever happened: each once, and nothing is left over.
        assert sorted(test.loadgen.ids()) == list(range(10_000, 10_000 + total))
        assert test.sut.issued_samples == test.sut.completed_samples == total
        answered = test.sut.answered()
        assert len(answered) == case.endpoints
        assert sum(one.samples for one in answered) == total - test.sut.failures.samples
        assert sum(one.samples for one in answered) == test.servers.answered_samples
        assert test.loadgen.recorded_samples == total
        assert not any(slot.response_ids for slot in test.sut.slots)
        assert max(endpoint.most_under_way for endpoint in test.endpoints) <= case.in_flight
        yield test


fast = settings(max_examples=60)


@fast
@given(cases(NOT_FATAL))
def test_every_response_id_is_completed_once_with_its_own_payload_or_empty_if_its_request_failed(
    case: Case,
) -> None:
    with run(case) as test:
        payloads = test.loadgen.payloads()
        failed: dict[int, list[int]] = {}
        asked: list[tuple[int, ...]] = []
        for first, query in test.issued:
            for request in cut(query, case.loaded, case.batch):
                is_known = request != [UNKNOWN]
                asked += [tuple(request)] * is_known
                if is_known and case.fates.get(request[0], Fate.ANSWERED) == Fate.ANSWERED:
                    expected = list(map(payload_of, request))
                else:
                    failed[first] = request
                    expected = [b""] * len(request)
                assert [payloads[first + place] for place in range(len(request))] == expected
                first += len(request)
        assert Counter(test.servers.asked) == Counter(asked)
        failures = test.sut.failures
        assert (failures.requests, failures.samples) == (len(failed), sum(map(len, failed.values())))
        assert not failures.is_fatal
        # The first of which LoadGen heard.
        one = next((ids[0] for ids, _ in test.loadgen.completed if ids[0] in failed), None)
        assert failures.first_sample_indices == (() if one is None else tuple(failed[one]))
        assert (failures.first == "") is (one is None)


@fast
@given(cases((*NOT_FATAL, *FATAL)))
def test_once_the_server_is_gone_nothing_is_asked_and_the_rest_is_completed_empty(case: Case) -> None:
    with run(case) as test:
        assert test.servers.asked_when_gone == 0
        failures = test.sut.failures
        assert failures.is_fatal is test.servers.is_gone
        assert failures.samples == sum(map(len, case.queries)) - test.servers.answered_samples
        samples = {
            first + place: sample for first, query in test.issued for place, sample in enumerate(query)
        }
        payloads = test.loadgen.payloads()
        assert all(payload in (b"", payload_of(samples[one])) for one, payload in payloads.items())


def test_what_failed_first_is_kept_and_all_of_it_is_counted() -> None:
    fates = {4: Fate.READ_RAISES, 8: Fate.FAILED, 12: Fate.GONE}
    with staged(Servers(fates), range(16), batch=4) as test:
        test.issue(range(16))
        test.issue(range(5))
        test.loadgen.wait(21)
        failures = test.sut.failures
    assert failures.first == "InferenceError: malformed"
    assert failures.first_sample_indices == (4, 5, 6, 7)
    # Three of the first query, and the two that the second is cut into.
    assert (failures.requests, failures.samples) == (5, 17)
    assert failures.is_fatal
    assert test.servers.asked == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)]


def test_the_first_failure_says_what_kind_of_error_it_is() -> None:
    with staged(Servers({1: Fate.ASK_RAISES}), [0, 1], answers_now=True) as test:
        test.issue([0, UNKNOWN, 1])
        test.issue([1])
    assert test.sut.failures.first == "KeyError: 999"
    assert test.sut.failures.first_sample_indices == (UNKNOWN,)
    assert test.sut.failures.requests == 3


def test_of_several_servers_the_first_failure_says_which_one_it_was() -> None:
    with staged(Servers({1: Fate.GONE}), [0, 1, 2], endpoints=3, places=["a:1", "b:1", "c:1"]) as test:
        # One sample each, in turns.
        for sample in (0, 1, 2):
            test.issue([sample])
            test.loadgen.wait(sample + 1)
    assert test.sut.failures.first.endswith(" (of the server at b:1)")


def test_what_is_beyond_the_slots_waits_and_goes_to_whoever_is_free() -> None:
    with staged(Servers(is_held=True), range(20), in_flight=2, endpoints=3) as test:
        for sample in range(9):
            test.issue([sample])
        test.settle()
        assert test.under_way() == [2, 2, 2]
        assert test.servers.asked == [(sample,) for sample in range(6)]
        test.release(endpoint=1)
        assert test.under_way() == [2, 2, 2]
        assert test.servers.asked[6:] == [(6,)]
        for endpoint in (0, 0, 1, 1, 2, 2):
            test.release(endpoint)
        assert sum(test.under_way()) == 2
        assert test.servers.asked[6:] == [(6,), (7,), (8,)]


def test_a_test_that_is_given_up_sends_nothing_more_and_ends_with_what_is_under_way() -> None:
    with staged(Servers(is_held=True), range(20), in_flight=2) as test:
        for sample in range(5):
            test.issue([sample])
        test.settle()
        test.sut.give_up()
        test.issue([5])
        test.settle()
        test.release(endpoint=0)
        test.release(endpoint=0)
        test.loadgen.wait(6)
        assert test.servers.asked == [(0,), (1,)]
        assert test.sut.failures.samples == 4


def test_endpoints_that_have_equally_few_under_way_take_turns() -> None:
    with staged(Servers(is_held=True), range(20), in_flight=2, endpoints=3) as test:
        seen = []
        for sample in range(6):
            test.issue([sample])
            test.settle()
            seen.append(test.under_way().index(1))
            test.release(endpoint=seen[-1])
    assert seen == [0, 1, 2, 0, 1, 2]


def test_a_request_goes_to_the_endpoint_with_the_fewest_under_way() -> None:
    with staged(Servers(is_held=True), range(20), in_flight=3, endpoints=2) as test:
        for sample in range(4):
            test.issue([sample])
        test.settle()
        assert test.under_way() == [2, 2]
        test.release(endpoint=1)
        test.release(endpoint=1)
        test.issue([4])
        test.settle()
        assert test.under_way() == [2, 1]


def test_one_large_query_does_not_flood_a_server() -> None:
    with staged(Servers(is_held=True), range(40), batch=4, in_flight=3) as test:
        test.issue(range(40))
        test.settle()
        assert test.under_way() == [3]
        assert test.servers.asked == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]


@pytest.mark.parametrize("answers_now", [False, True])
def test_a_multi_stream_query_that_runs_into_the_repeated_samples_is_one_request(answers_now: bool) -> None:
    order = [5, 3, 8, 1, 7, 2, 9, 4, 0, 6]
    loaded = order + order[:7]
    with staged(Servers(), loaded, batch=8, answers_now=answers_now) as test:
        test.issue([0, 6, 5, 3, 8, 1, 7, 2])
        test.loadgen.wait(8)
    assert test.servers.asked == [(0, 6, 5, 3, 8, 1, 7, 2)]
    assert [payload for _, payloads in test.loadgen.completed for payload in payloads] == [
        payload_of(sample) for sample in (0, 6, 5, 3, 8, 1, 7, 2)
    ]


def test_a_slot_tells_the_watchdog_whether_it_is_still_the_same_request() -> None:
    with staged(Servers(is_held=True), [0, 1]) as test:
        (slot,) = test.sut.slots
        test.issue([0])
        test.settle()
        first = slot.uses
        assert list(slot.response_ids) == [10_000]
        test.issue([1])
        test.settle()
        assert slot.uses == first
        test.release()
        assert slot.uses != first
        assert list(slot.response_ids) == [10_001]
        test.release()
        assert not slot.response_ids

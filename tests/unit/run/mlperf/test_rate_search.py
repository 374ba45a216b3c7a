"""The search for a rate, by made-up machines: each keeps the bound up to its own limit, or by chance."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.run.mlperf.early_stopping import most_over, share_over
from harness.run.mlperf.rate_search import (
    Probe,
    Search,
    bracket,
    confirming_rates,
    nearest,
    probes_left,
    search,
)
from harness.run.mlperf.rounds import Scenario
from tests.plans import any_plan

RATES = st.floats(0.05, 1e6)


def searched(start: float, keeps: Callable[[float], bool], bound_s: float = 1e6) -> list[Probe]:
    """The tests of a search on a machine; with so long a bound, no rate is too low to be worth trying."""

    def probe(rate: float | None) -> Probe:
        offered = nearest(start) if rate is None else rate
        return Probe(offered, 1.0, keeps(offered))

    return search(probe, bound_s)


@given(limit=RATES, distance=st.floats(0.2, 10.0))
def test_the_rate_found_is_just_below_the_machines_limit(limit: float, distance: float) -> None:
    tried = searched(limit * distance, lambda rate: rate <= limit)
    low, high = bracket(tried)
    assert low is not None
    assert high is not None
    assert limit / 1.021 < low <= limit < high
    assert len(tried) <= 13


@given(limit=RATES, starts=st.tuples(st.floats(0.3, 3.0), st.floats(0.3, 3.0)))
def test_two_searches_on_one_machine_find_the_same_rate_wherever_they_begin(
    limit: float, starts: tuple[float, float]
) -> None:
    found = {bracket(searched(limit * start, lambda rate: rate <= limit))[0] for start in starts}
    assert len(found) == 1


def test_a_search_from_a_good_guess_takes_few_tests() -> None:
    tried = searched(60.0, lambda rate: rate <= 72.0)
    assert [probe.rate for probe in tried] == [60.29, 70.64, 96.97, 82.76, 76.46, 73.49, 72.05, 72.05, 72.05]


def test_how_many_tests_are_left_is_known_once_there_are_bounds_and_guessed_before() -> None:
    tried = searched(60.0, lambda rate: rate <= 72.0)
    # Of the nine, halving is certain after the third: one kept the bound, the next did not.
    assert [probes_left(tried[:made]) for made in range(len(tried) + 1)] == [11, 10, 9, 6, 5, 4, 3, 2, 1, 0]


def test_where_no_rate_keeps_the_bound_a_tenth_of_the_first_is_the_last_that_is_tried() -> None:
    tried = searched(100.0, lambda _: False)
    assert len(tried) == 5
    assert 9.0 < tried[-1].rate < 10.0
    assert bracket(tried) == (None, tried[-1].rate)


def test_a_query_that_is_late_all_alone_needs_no_lower_rate() -> None:
    # At 4 a second the next query comes, on average, 25 bounds later.
    assert len(searched(4.0, lambda _: False, bound_s=0.01)) == 1
    assert len(searched(40.0, lambda _: False, bound_s=0.01)) == 5


def test_where_every_rate_keeps_the_bound_the_search_ends_all_the_same() -> None:
    tried = searched(100.0, lambda _: True)
    assert len(tried) == 20
    assert bracket(tried) == (tried[-1].rate, None)


def test_a_disturbance_is_not_taken_for_the_limit() -> None:
    numbers = iter(range(100))
    tried = searched(50.0, lambda rate: next(numbers) != 1 and rate <= 100.0)
    # The second test failed for nothing, and was the ceiling until it was doubted.
    assert tried[1].rate < 60.0
    assert not tried[1].is_kept
    low, high = bracket(tried)
    assert low is not None
    assert high is not None
    assert 98.0 < low <= 100.0 < high


@given(seed=st.integers(0, 1000), share=st.floats(0.0, 0.4))
def test_noise_never_makes_a_search_endless_or_its_rate_one_that_was_not_kept(
    seed: int, share: float
) -> None:
    chance = random.Random(seed)
    tried = searched(60.0, lambda rate: rate <= 72.0 and chance.random() >= share)
    assert len(tried) <= 20
    low, _ = bracket(tried)
    assert low is None or low <= 72.0


@given(seed=st.integers(0, 1000))
def test_a_limit_that_is_none_sharply_is_found_within_its_width(seed: int) -> None:
    chance = random.Random(seed)
    low, _ = bracket(searched(60.0, lambda rate: rate <= 70.0 * chance.uniform(0.97, 1.03)))
    assert low is not None
    assert 64.0 < low < 72.2


@given(RATES)
def test_a_rate_of_the_ladder_is_its_own_nearest(rate: float) -> None:
    assert nearest(nearest(rate)) == nearest(rate)
    assert nearest(rate) == pytest.approx(rate, rel=0.011)


def test_confirming_begins_at_the_rate_itself_and_then_goes_down_faster_and_faster() -> None:
    assert confirming_rates(72.05) == [72.05, 69.25, 66.56, 61.49, 52.48, 38.23, 20.29]


def test_only_a_confirmed_rate_is_found() -> None:
    kept = Probe(70.0, 80.0, is_kept=True)
    missed = Probe(70.0, 120.0, is_kept=False, is_confirming=True)
    confirmed = Probe(68.6, 90.0, is_kept=True, is_confirming=True)
    assert Search((kept,)).found is None
    assert Search((kept, missed)).found is None
    assert Search((kept, missed, confirmed)).found == 68.6
    assert Search(()).found is None


# Queries and how many of them may be over: LoadGen's own MinPassingQueriesFinder.
@pytest.mark.parametrize(
    ("queries", "most"), [(459, 0), (662, 1), (838, 2), (1001, 3), (1307, 5), (2010, 10), (12571, 100)]
)
def test_so_many_queries_may_be_over_the_bound(queries: int, most: int) -> None:
    assert most_over(queries) == most
    assert most_over(queries - 1) == max(0, most - 1)


def test_the_share_that_may_be_over_is_that_of_the_queries_that_a_rate_makes() -> None:
    plan = any_plan(Scenario.SERVER, min_duration_ms=10_000, min_query_count=838)
    assert share_over(plan) == 2 / 838
    faster = any_plan(Scenario.SERVER, min_duration_ms=10_000, min_query_count=838, target_qps=201.0)
    assert share_over(faster) == 10 / 2010

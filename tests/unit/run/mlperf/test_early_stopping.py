"""How many queries of a whole Server test may be over its bound."""

import pytest

from harness.run.mlperf.early_stopping import most_over, most_over_in
from harness.run.mlperf.rounds import Scenario
from tests.plans import any_plan


@pytest.mark.parametrize(
    ("settings", "queries"),
    [
        ({"min_query_count": 838, "min_duration_ms": 0}, 838),
        # 10,000 queries, or by chance 10,500.
        ({"target_qps": 100.0, "min_duration_ms": 100_000}, 10_500),
        ({"target_qps": 1.0, "min_duration_ms": 1000, "min_query_count": 459}, 459),
    ],
)
def test_a_schedule_that_is_long_by_chance_may_have_more_over(
    settings: dict[str, float], queries: int
) -> None:
    assert most_over_in(any_plan(Scenario.SERVER, **settings)) == most_over(queries)

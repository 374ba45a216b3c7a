"""LoadGen's early stopping in Server: how many queries may be over the bound, by how many were made."""

import math

from harness.run.mlperf.plan import Plan

_OVER = 0.01
_DOUBT = 0.01
_SPREAD = 5.0
"""Standard deviations by which a schedule may have more queries than its rate makes: by Poisson's law."""


def most_over(queries: int) -> int:
    """The most of so many queries over the bound that leave 99 % confidence that 99 % keep it.

    The largest number that a server with just 1 % over the bound would stay within in only 1 % of all tests;
    0 too where so few queries show nothing at all.
    """
    most, likelihood = -1, 0.0
    while likelihood <= _DOUBT and most < queries:
        most += 1
        likelihood += math.exp(
            math.lgamma(queries + 1)
            - math.lgamma(most + 1)
            - math.lgamma(queries - most + 1)
            + most * math.log(_OVER)
            + (queries - most) * math.log1p(-_OVER)
        )
    return max(0, most - 1)


def most_over_in(plan: Plan) -> int:
    """The most queries over the bound with which a Server test can be VALID, however long its schedule."""
    expected = plan.target_qps * plan.min_duration_ms / 1000
    return most_over(math.ceil(max(plan.min_query_count, expected + _SPREAD * math.sqrt(expected))))


def share_over(plan: Plan) -> float:
    """The share of a Server test's queries, 0 to 1, that may be over its bound at its rate."""
    queries = max(plan.min_query_count, int(plan.target_qps * plan.min_duration_ms / 1000))
    return most_over(queries) / queries

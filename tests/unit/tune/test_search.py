"""Which settings are tried, how often, and which are taken; the figures are handed in."""

from collections.abc import Sequence

import pytest

from harness.models import MODELS
from harness.models.model_config import RUN_BATCH
from harness.models.platforms import Platform
from harness.run.config import tuning
from harness.run.config.measured.table import Choice
from harness.run.mlperf.rounds import Scenario
from harness.tune.search import Found, candidates, described, search

SPINNING = {"session.intra_op.allow_spinning": "1"}
CASES = [
    (spec.name, platform, scenario, threads)
    for spec in MODELS.values()
    for platform in spec.variants
    for scenario in Scenario
    for threads in (0, 1, 2, 6, 64)
]


class Figures:
    """Stands where the server does: each candidate's figures in turn, the last for ever."""

    def __init__(self, *of_each: Sequence[float]) -> None:
        self.choices = [Choice(instances=number + 1, client_batch=1) for number in range(len(of_each))]
        self.asked: list[int] = []
        self._of_each = of_each

    def measure(self, choice: Choice) -> float:
        number = self.choices.index(choice)
        found = self._of_each[number]
        turn = self.asked.count(number)
        self.asked.append(number)
        return found[min(turn, len(found) - 1)]

    def search(self) -> Found:
        return search(self.choices, self.measure, "trying")


@pytest.mark.parametrize(("model", "platform", "scenario", "threads"), CASES)
def test_candidates_begin_with_the_rules_choice_and_none_is_tried_twice_or_impossible(
    model: str, platform: Platform, scenario: Scenario, threads: int
) -> None:
    spec = MODELS[model]
    variant = spec.variants[platform]
    per_query = spec.multi_stream_samples_per_query if scenario == Scenario.MULTI_STREAM else 1
    found = candidates(variant, scenario, threads, per_query)
    assert found[0] == tuning.rule(variant, scenario, threads, per_query)
    assert all(choice not in found[:number] for number, choice in enumerate(found))
    assert all(1 <= choice.instances <= (threads or 4) for choice in found)
    # The rule's is cut to the model's limit where it is used.
    for choice in found[1:]:
        assert 1 <= choice.client_batch <= max(found[0].client_batch, variant.batch_limit)
        assert choice.max_batch <= variant.batch_limit


def of_mobilenet(scenario: Scenario, threads: int, per_query: int = 1) -> list[Choice]:
    variant = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
    return candidates(variant, scenario, threads, per_query)


def test_one_query_is_tried_with_threads_that_sleep_and_that_stay_awake() -> None:
    assert of_mobilenet(Scenario.SINGLE_STREAM, 2) == [Choice(1, 1), Choice(1, 1, parameters=SPINNING)]


def test_threads_of_an_instance_with_one_thread_wait_for_nobody() -> None:
    assert of_mobilenet(Scenario.SINGLE_STREAM, 1) == [Choice(1, 1)]


def test_a_query_of_eight_is_tried_in_one_and_in_parts() -> None:
    found = of_mobilenet(Scenario.MULTI_STREAM, 2, per_query=8)
    assert {(choice.instances, choice.client_batch) for choice in found} == {(1, 4), (1, 8), (2, 4), (2, 8)}
    assert found[0] == Choice(2, 4)


def test_in_server_triton_is_tried_with_one_two_and_all_that_wait() -> None:
    found = of_mobilenet(Scenario.SERVER, 2)
    assert {choice.max_batch for choice in found} == {0, 1, 2}
    assert {choice.instances for choice in found} == {1, 2}
    assert {choice.client_batch for choice in found} == {1}


def test_offline_is_tried_with_several_batches_and_with_parts_that_a_cores_caches_hold() -> None:
    found = of_mobilenet(Scenario.OFFLINE, 2)
    assert found[0] == Choice(2, 32, parameters={RUN_BATCH: "4"})
    assert {choice.client_batch for choice in found} == {4, 8, 32, 64}
    parts = {choice.parameters.get(RUN_BATCH) for choice in found}
    assert parts == {None, "2", "4"}


def test_a_model_that_takes_no_batches_is_not_tried_with_them() -> None:
    variant = MODELS["ssd-resnet34"].variants[Platform.ONNXRUNTIME]
    assert variant.batch_limit == 1
    for scenario in (Scenario.OFFLINE, Scenario.SERVER):
        assert {choice.client_batch for choice in candidates(variant, scenario, 2, 1)} == {1}


def test_the_best_median_is_taken_though_another_had_the_best_moment() -> None:
    figures = Figures([1.0, 1.0, 1.0], [0.8, 0.9, 0.85], [0.7, 1.0, 1.1])
    found = figures.search()
    assert found.choice == figures.choices[1]
    assert list(found.medians) == [1.0, 0.85, 1.0]


def test_all_are_measured_in_turn_so_that_what_disturbs_the_machine_disturbs_all() -> None:
    figures = Figures([1.0], [1.1], [1.2])
    figures.search()
    assert figures.asked == [0, 1, 2] * 3


def test_a_hopeless_candidate_is_tried_once_and_the_others_again() -> None:
    figures = Figures([1.0], [1.31], [0.9])
    assert figures.search().choice == figures.choices[2]
    assert figures.asked == [0, 1, 2, 0, 2, 0, 2]


def test_one_that_falls_behind_later_is_left_out_then() -> None:
    figures = Figures([1.0], [0.9, 2.0, 2.0])
    assert figures.search().choice == figures.choices[0]
    # The median of 0.9 and 2.0 is 1.45.
    assert figures.asked == [0, 1, 0, 1]


def test_a_search_ends_when_all_but_one_are_hopeless() -> None:
    figures = Figures([1.0], [0.5], [2.0])
    assert figures.search().choice == figures.choices[1]
    assert figures.asked == [0, 1, 2]


@pytest.mark.parametrize(("figure", "best"), [(0.96, 0), (0.95, 1), (0.94, 1), (1.0, 0), (1.2, 0)])
def test_what_is_not_clearly_better_than_the_rules_choice_does_not_replace_it(
    figure: float, best: int
) -> None:
    assert Figures([1.0], [figure]).search().best == best


def test_where_cores_are_not_counted_several_numbers_of_instances_are_tried() -> None:
    assert {choice.instances for choice in of_mobilenet(Scenario.OFFLINE, 0)} == {1, 2, 4}
    assert {choice.instances for choice in of_mobilenet(Scenario.SINGLE_STREAM, 0)} == {1}
    multi = of_mobilenet(Scenario.MULTI_STREAM, 0, per_query=8)
    assert {choice.client_batch for choice in multi} == {2, 4, 8}


def test_a_lead_is_over_the_best_with_the_rule_s_number_of_instances() -> None:
    by_rule, joined, one = Choice(2, 1), Choice(2, 1, max_batch=1), Choice(1, 1)
    found = Found([by_rule, joined, one], [[2.0], [1.0], [0.8, 0.8, 0.88]], 2)
    assert found.lead == pytest.approx(0.2)
    assert found.noise == pytest.approx(0.1)
    assert Found(found.choices, found.figures, 1).lead == pytest.approx(0.5)
    assert Found(found.choices, found.figures, 0).lead == 0


def test_rounds_that_happen_to_agree_do_not_mean_that_there_is_no_noise() -> None:
    assert Found([Choice(1, 1)], [[1.0, 1.0, 1.0]], 0).noise == 0.05


def test_a_hopeless_rule_is_replaced() -> None:
    figures = Figures([2.0], [1.0], [1.02])
    assert figures.search().choice == figures.choices[1]
    assert figures.asked == [0, 1, 2, 1, 2, 1, 2]


def test_a_single_candidate_is_measured_once() -> None:
    figures = Figures([3.0])
    assert figures.search().choice == figures.choices[0]
    assert figures.asked == [0]


def test_an_error_of_a_measurement_ends_the_search() -> None:
    def failing(_: Choice) -> float:
        raise RuntimeError("no server")

    with pytest.raises(RuntimeError, match="no server"):
        search([Choice(1, 1), Choice(2, 1)], failing, "trying")


def test_what_was_found_is_told_beside_what_the_others_reached() -> None:
    found = Found([Choice(1, 1), Choice(2, 4, max_batch=2, parameters=SPINNING)], [[0.01], [0.002]], 1)
    assert described(found, Scenario.SERVER, " at 20.0 queries/s") == (
        "2.00 ms at 20.0 queries/s against 1 instance, batch 1: 10.00 ms"
    )
    assert described(Found(found.choices, found.figures, 0), Scenario.OFFLINE) == (
        "100.0 samples/s against 2 instances, batch 4, 2 at once allow_spinning=1: 500.0 samples/s"
    )
    assert described(Found([Choice(1, 1)], [[0.01]], 0), Scenario.SINGLE_STREAM) == "10.00 ms"

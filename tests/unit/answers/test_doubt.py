import numpy as np
import pytest

from harness.answers import doubt
from harness.models import MODELS
from harness.models.platforms import Platform

VARIANT = MODELS["resnet50"].variants[Platform.ONNXRUNTIME]


def _doubts(answered, labels, *, is_own_file=True):
    payloads = {index: np.float32(label).tobytes() for index, label in enumerate(answered)}
    return doubt.of_classes(payloads, labels, VARIANT, is_own_file=is_own_file)


@pytest.mark.parametrize("right", [20, 15, 8])
def test_what_is_often_right_is_not_doubted(right):
    labels = list(range(0, 40, 2))
    answered = [label if index < right else label + 100 for index, label in enumerate(labels)]
    assert _doubts(answered, labels) == ()


@pytest.mark.parametrize(("shift", "word", "offset"), [(1, "lower", -2), (-1, "higher", 0)])
def test_labels_that_are_counted_otherwise_are_told_of_with_the_option(shift, word, offset):
    labels = list(range(0, 40, 2))
    (found,) = _doubts([label + shift for label in labels], labels)
    assert f"one {word} 100.00% would be right instead of 0.00%" in found
    assert f"--label-offset {offset}" in found


def test_a_named_models_offset_is_not_the_users_to_change():
    (found,) = _doubts([1, 3, 5], [0, 2, 4], is_own_file=False)
    assert "--label-offset" not in found
    assert "correct the labels" in found


@pytest.mark.parametrize(
    ("answered", "labels"),
    [
        # One class for everything, whose neighbour is the commonest label.
        ([1] * 6, [0, 0, 0, 0, 1, 2]),
        ([1] * 60, [0] * 40 + [1] * 5 + [2] * 15),
        # Two samples say nothing.
        ([1, 2], [0, 1]),
        # Guesses, of which one is right as they are, and five if shifted.
        ([1, 2, 0, 1, 2, 0, 1, 2, 0], [0, 1, 0, 0, 1, 1, 0, 0, 2]),
    ],
)
def test_what_chance_may_make_right_is_no_shift(answered, labels):
    for doubted in _doubts(answered, labels):
        assert "no better than guessing" in doubted


@pytest.mark.parametrize("answered", [[7, 7, 7], [0, 0, 0]])
def test_no_better_than_guessing_is_doubted_and_names_the_preprocessing(answered):
    (found,) = _doubts(answered, [0, 40, 80])
    assert "no better than guessing among the 3 labels" in found
    assert "mean=123.68,116.78,103.94" in found


@pytest.mark.parametrize(
    ("answered", "labels"),
    [
        ([0] * 100, [0] * 60 + [1] * 40),
        # 0.12 % of 1000 labels is no more than chance, however many samples there are.
        (
            [index * 7 % 1000 for index in range(50_000)],
            [index * 7 % 1000 if index < 58 else (index * 7 + 500) % 1000 for index in range(50_000)],
        ),
    ],
)
def test_what_any_order_of_the_answers_would_make_right_is_guessing(answered, labels):
    (found,) = _doubts(answered, labels)
    assert "no better than guessing" in found


@pytest.mark.parametrize(
    ("answered", "labels"),
    [([0, 1], [0, 1]), ([0, 0, 1, 0], [0, 0, 1, 1]), ([0, 1] * 4 + [1, 0], [0, 1] * 5)],
)
def test_few_samples_that_are_mostly_right_are_not_doubted(answered, labels):
    assert _doubts(answered, labels) == ()


def test_one_label_that_is_always_answered_is_not_doubted():
    assert _doubts([4, 4], [4, 4]) == ()


def test_of_a_file_of_ones_own_any_gain_by_a_shift_is_told():
    # Neighbouring classes are much alike: a third is right by mistake.
    labels = [3 * index % 40 for index in range(60)]
    answered = [label - 1 if index % 3 else label for index, label in enumerate(labels)]
    (found,) = _doubts(answered, labels)
    assert "one higher 66.67% would be right instead of 33.33%" in found
    answered = [label - 1 if index % 5 < 3 else label for index, label in enumerate(labels)]
    (found,) = _doubts(answered, labels)
    assert "one higher 60.00% would be right instead of 40.00%" in found
    assert _doubts(answered, labels, is_own_file=False) == ()


@pytest.mark.parametrize(("answered", "labels"), [([7], [3]), ([7, 4], [3, 4]), ([7, 8], [3, 4])])
def test_one_or_two_samples_tell_nothing_of_chance(answered, labels):
    assert _doubts(answered, labels) == ()

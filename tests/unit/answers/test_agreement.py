import numpy as np
import pytest

from harness.answers.agreement import compare
from harness.answers.payloads import split, strongest


def records(*rows: tuple[float, ...]) -> np.ndarray:
    """(y, x, y, x, score, class) rows of sample 0."""
    return np.array([(0, *row) for row in rows], np.float32).reshape(-1, 7)


CAT = (0.1, 0.1, 0.5, 0.5, 0.9, 17)
DOG = (0.2, 0.2, 0.6, 0.6, 0.8, 18)
FAINT = (0.2, 0.2, 0.6, 0.6, 0.01, 18)


def test_the_same_boxes_in_another_order_agree_fully() -> None:
    agreement = compare([records(CAT, DOG)], [records(DOG, CAT)], 0.0)
    assert (agreement.share, agreement.largest_difference, agreement.detections) == (1.0, 0.0, 4)


def test_a_box_that_only_one_finds_lowers_the_share() -> None:
    assert compare([records(CAT, DOG)], [records(CAT)], 1e-3).share == pytest.approx(2 / 3)
    assert compare([records(CAT)], [records(CAT, DOG)], 1e-3).share == pytest.approx(2 / 3)


def test_another_class_is_no_twin() -> None:
    assert compare([records(CAT)], [records((*CAT[:5], 18))], 1.0).share == 0.0


def test_one_box_is_twin_of_only_one() -> None:
    assert compare([records(CAT, CAT)], [records(CAT)], 1e-3).share == pytest.approx(2 / 3)


def test_the_largest_difference_of_twins_is_of_score_or_corner() -> None:
    moved = (0.1, 0.1, 0.5, 0.504, 0.899, 17)
    assert compare([records(CAT)], [records(moved)], 0.01).largest_difference == pytest.approx(
        0.004, rel=1e-3
    )
    assert compare([records(CAT)], [records(moved)], 0.001).share == 0.0


def test_faint_boxes_do_not_count_but_can_be_twins() -> None:
    assert compare([records(CAT, FAINT)], [records(CAT)], 1e-3).share == 1.0
    at_the_limit, below = (*DOG[:4], 0.0501, 18), (*DOG[:4], 0.0499, 18)
    assert compare([records(at_the_limit)], [records(below)], 1e-3).share == 1.0


def test_the_strongest_are_significant_and_at_most_a_hundred_of_a_class() -> None:
    crowd = [(0.1, 0.1, 0.2, 0.2, 0.1 + index / 1000, 17) for index in range(150)]
    found = strongest(records(FAINT, DOG, *crowd))
    assert (found[:, 6] == 17).sum() == 100
    assert found[0].tolist() == pytest.approx([0, *DOG])
    assert found[:, 5].min() == pytest.approx(0.15)


def test_images_are_not_mixed_up() -> None:
    assert compare([records(CAT), records(DOG)], [records(DOG), records(CAT)], 1e-3).share == 0.0


def test_no_detections_at_all_agree() -> None:
    assert compare([records()], [records()], 1e-3).share == 1.0


def test_records_are_split_by_sample_even_where_one_has_none() -> None:
    rows = np.array([(0, *CAT), (2, *CAT), (2, *DOG)], np.float32)
    assert [len(part) for part in split(rows, 4)] == [1, 0, 2, 0]

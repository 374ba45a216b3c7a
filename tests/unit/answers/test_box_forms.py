import numpy as np
import pytest

from harness.answers.box_forms import as_answered, reader
from harness.models.spec import BOX_FORMS, Detection

SIZE_PX = (200, 400)
"""Height, width."""
CORNERS = [0.1, 0.2, 0.35, 0.7]
ANSWERED = {
    "yxyx": [0.1, 0.2, 0.35, 0.7],
    "xyxy": [0.2, 0.1, 0.7, 0.35],
    "xywh": [0.2, 0.1, 0.5, 0.25],
    "cxcywh": [0.45, 0.225, 0.5, 0.25],
    "yxyx,pixels": [20, 80, 70, 280],
    "xyxy,pixels": [80, 20, 280, 70],
    "xywh,pixels": [80, 20, 200, 50],
    "cxcywh,pixels": [180, 45, 200, 50],
}


@pytest.mark.parametrize("form", BOX_FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_box_of_every_form_is_read_as_the_same_corners_and_taken_back(form, dtype):
    detection = Detection("boxes", "scores", "classes").boxed(form)
    assert detection.box_form == form
    answered = np.array([[ANSWERED[form]]], dtype)
    before = answered.copy()
    corners = reader(detection, SIZE_PX)(answered)
    assert corners[0, 0] == pytest.approx(CORNERS, abs=1e-3 if dtype == np.float16 else 1e-6)
    assert np.array_equal(answered, before), "the server's answer stays as it was"
    assert as_answered(corners, detection, SIZE_PX)[0, 0] == pytest.approx(ANSWERED[form], rel=2e-3)


def test_boxes_that_need_no_arithmetic_keep_every_bit():
    values = np.random.default_rng(3).random((2, 5, 4), np.float32)
    detection = Detection("boxes", "scores", "classes")
    assert np.array_equal(reader(detection, SIZE_PX)(values), values)
    swapped = reader(detection.boxed("xyxy"), SIZE_PX)(values)
    assert np.array_equal(swapped, values[..., [1, 0, 3, 2]])

"""What a file leaves open of its images is filled in, and where nobody says how, tried."""

from pathlib import Path

import numpy as np
import pytest

from converters.formats.graph import Images, closed_shapes, describe_images
from harness.errors import ConversionError
from harness.models.spec import DType, Layout

SIZE_PX = (4, 6)
NCHW, NHWC = (3, 4, 6), (4, 6, 3)


@pytest.mark.parametrize(
    ("declared", "layout", "closed"),
    [
        (("n", 3, "h", "w"), None, [(0, *NCHW)]),
        ((-1, None, "w", 3), Layout.NCHW, [(0, *NHWC)]),
        ((8, 3, 2, 2), None, [(8, 3, 2, 2)]),
        (("n", "c", "h", "w"), None, [(0, *NCHW), (0, *NHWC)]),
        (("n", "c", "h", "w"), Layout.NHWC, [(0, *NHWC)]),
        (("n", "c", 2, 2), Layout.NHWC, [(0, 3, 2, 2)]),
        (("n", 1, 28, 28), None, [(0, 1, 28, 28)]),
        ((3,), None, [(3,)]),
    ],
)
def test_open_axes_are_filled_in_by_the_place_of_the_channels(declared, layout, closed):
    assert closed_shapes(declared, Images(SIZE_PX, layout)) == closed


def _described(*runs_on, layout=None):
    def run(batch):
        if batch.shape[1:] not in runs_on:
            raise RuntimeError("other channels")
        return [np.zeros((len(batch), 5), np.float32)]

    images = Images(SIZE_PX, layout)
    return describe_images(Path("net.onnx"), "x", DType.FP32, list("nchw"), images, ["scores"], run)


def test_of_a_file_that_leaves_all_axes_open_the_first_order_that_runs_is_taken():
    assert _described(NCHW, NHWC).input.shape == NCHW
    assert _described(NHWC).layout == Layout.NHWC
    assert _described(NCHW, NHWC, layout=Layout.NHWC).input.shape == NHWC


def test_a_file_of_open_axes_that_does_not_run_is_asked_about():
    with pytest.raises(
        ConversionError, match=r"x \[n, c, h, w\] leaves .* \[3, 4, 6\] nor on \[4, 6, 3\]: say --preprocess"
    ):
        _described()
    with pytest.raises(ConversionError, match=r"other channels; --preprocess size=…,layout=… says others"):
        _described(NHWC, layout=Layout.NCHW)

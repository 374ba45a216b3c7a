"""Without OpenCV: the same pixels as with it, of every kind of file and size that it is used for."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.data import numpy_cv, preprocess, synthetic
from harness.errors import ConfigError, DatasetError
from harness.models.recipes import COCO_300, RECIPES
from harness.models.spec import Resize
from tests.real_data import PHOTOGRAPHS, needs_real_data

INTERPOLATIONS = {
    "area": (cv2.INTER_AREA, numpy_cv.INTER_AREA),
    "linear": (cv2.INTER_LINEAR, numpy_cv.INTER_LINEAR),
}
CLASSIFIERS = [name for name, recipe in RECIPES.items() if recipe.resize != Resize.STRETCH_LINEAR]


def noise(height, width):
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(image, size, how):
    theirs, ours = INTERPOLATIONS[how]
    expected = cv2.resize(image, size, interpolation=theirs)
    assert np.array_equal(numpy_cv.resize(image, size, ours), expected), (image.shape, size, how)


@pytest.mark.parametrize("how", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((341, 256), (375, 500)),
        ((256, 341), (500, 375)),
        ((250, 187), (375, 500)),
        ((200, 100), (200, 400)),
        ((100, 50), (150, 300)),
        ((25, 30), (120, 100)),
        ((100, 60), (60, 100)),
        ((600, 300), (150, 300)),
        ((300, 100), (150, 200)),
        ((5, 7), (1, 1)),
        ((1, 1), (90, 70)),
    ],
    ids=str,
)
def test_a_resize_is_opencvs(how, size, shape):
    assert_same(noise(*shape), size, how)


@settings(max_examples=60, deadline=None)
@given(
    how=st.sampled_from(sorted(INTERPOLATIONS)),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_a_resize_of_any_size_is_opencvs(how, shape, size):
    assert_same(noise(*shape), size, how)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"quality": 30, "subsampling": 2}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_is_decoded_as_opencv_does(mode, kind, options):
    encoded = io.BytesIO()
    Image.fromarray(noise(61, 47)).convert(mode).save(encoded, kind, **options)
    content = np.frombuffer(encoded.getvalue(), np.uint8)
    expected = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert expected.shape == ((47, 61, 3) if "exif" in options else (61, 47, 3))
    assert np.array_equal(numpy_cv.imdecode(content, numpy_cv.IMREAD_COLOR), expected)


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setattr(preprocess, "cv2", numpy_cv)
    monkeypatch.setattr(
        preprocess,
        "_RESIZE",
        {
            **preprocess._RESIZE,
            Resize.ASPECT_AREA: preprocess._opencv(numpy_cv.INTER_AREA),
            Resize.ASPECT_LINEAR: preprocess._opencv(numpy_cv.INTER_LINEAR),
        },
    )
    preprocess.decoder_version.cache_clear()
    yield
    preprocess.decoder_version.cache_clear()


def expected_of(paths):
    return {(path, name): preprocess.load(path, RECIPES[name]) for path in paths for name in CLASSIFIERS}


@pytest.fixture
def photographs(tmp_path):
    """With what `preprocess` makes of them by OpenCV."""
    return expected_of(synthetic.draw_set(tmp_path, 12, workers=1))


def test_classifiers_have_the_same_samples(photographs, without_opencv):
    for (path, name), expected in photographs.items():
        assert np.array_equal(preprocess.load(path, RECIPES[name]), expected), (path, name)


@needs_real_data
def test_classifiers_have_the_same_samples_of_real_photographs(request):
    expected = expected_of(sorted(Path(PHOTOGRAPHS).glob("*.JPEG"))[::10])
    request.getfixturevalue("without_opencv")
    for (path, name), samples in expected.items():
        assert np.array_equal(preprocess.load(path, RECIPES[name]), samples), (path, name)


def test_results_say_that_it_was_not_opencv(without_opencv):
    assert preprocess.decoder_version().startswith("opencv by numpy 1, libjpeg-turbo ")


def test_what_only_opencv_can_do_names_the_extra(tmp_path, without_opencv):
    Image.fromarray(noise(30, 40)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(DatasetError, match=r"cmyk\.jpg: .*CMYK.*'\.\[opencv\]'"):
        preprocess.decode(tmp_path / "cmyk.jpg")
    with pytest.raises(ConfigError, match=r"stretched by OpenCV: .*'\.\[opencv\]'"):
        preprocess.apply(noise(30, 40), COCO_300)


def test_what_is_cut_off_or_no_image_is_refused(tmp_path, without_opencv):
    whole = io.BytesIO()
    Image.fromarray(noise(90, 120)).save(whole, "JPEG")
    for name, content in {"half.jpg": whole.getvalue()[:2000], "text.jpg": b"no image"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=name):
            preprocess.decode(tmp_path / name)
    with pytest.raises(numpy_cv.error, match="no pixel"):
        numpy_cv.resize(noise(3, 3), (0, 5), numpy_cv.INTER_AREA)

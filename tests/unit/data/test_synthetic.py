import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data import synthetic
from harness.errors import DatasetError


def test_an_image_is_the_same_whatever_the_count_and_the_workers(tmp_path):
    few = synthetic.draw_set(tmp_path / "few", 3, workers=1)
    many = synthetic.draw_set(tmp_path / "many", 9, workers=4)
    assert [path.read_bytes() for path in few] == [path.read_bytes() for path in many[:3]]


# Seen when version 1 was drawn (OpenCV 4.11.0, numpy 1.26.4): (height, width) and mean. Should these differ,
# the drawings changed and `synthetic.VERSION` has to go up with them.
@pytest.mark.parametrize(
    ("index", "size", "mean"),
    [
        (0, (400, 400), 90.06),
        (1, (321, 481), 90.58),
        (2, (256, 256), 131.55),
        (3, (400, 400), 188.09),
        (17, (150, 200), 239.05),
    ],
)
def test_the_drawings_are_still_those_of_version_1(index, size, mean):
    image = synthetic.draw(index)
    assert synthetic.VERSION == 1
    assert image.shape[:2] == size
    assert image.mean() == pytest.approx(mean, abs=0.1)


def test_images_differ_in_size_aspect_and_colour(tmp_path):
    images = [cv2.imread(str(path)) for path in synthetic.draw_set(tmp_path, 80, workers=2)]
    sizes = {image.shape[:2] for image in images}
    greys = [image for image in images if np.array_equal(image[..., 0], image[..., 2])]
    assert len(sizes) >= 10
    assert any(height > width for height, width in sizes)
    assert any(height < width for height, width in sizes)
    assert any(height == width for height, width in sizes)
    assert any(min(size) < 256 for size in sizes)
    assert 1 <= len(greys) < 20
    thumbnails = {cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA).tobytes() for image in images}
    assert len(thumbnails) == len(images)
    assert np.std([image.mean() for image in images]) > 25


def test_pillow_reads_them_too(tmp_path):
    for path in synthetic.draw_set(tmp_path, 4, workers=2):
        with Image.open(path) as image:
            image.load()
            assert image.format == "JPEG"


def test_intact_images_are_kept_and_only_the_others_are_drawn(tmp_path):
    paths = synthetic.draw_set(tmp_path, 5, workers=2)
    originals = [path.read_bytes() for path in paths]
    damaged, other_version, cut_off, gone = paths[:4]
    damaged.write_bytes(originals[0][:-100] + bytes([originals[0][-100] ^ 1]) + originals[0][-99:])
    other_version.write_bytes(originals[1].replace(b"synthetic v1 ", b"synthetic v0 "))
    cut_off.write_bytes(originals[2][:500])
    gone.unlink()
    os.utime(paths[4], ns=(1, 1))
    progressed: list[int] = []
    assert synthetic.draw_set(tmp_path, 5, 2, progressed.append) == paths
    assert [path.read_bytes() for path in paths] == originals
    assert paths[4].stat().st_mtime_ns == 1
    assert sum(progressed) == 5


def test_an_image_under_another_number_is_drawn_again(tmp_path):
    first, second = synthetic.draw_set(tmp_path, 2, workers=1)
    expected = second.read_bytes()
    second.write_bytes(first.read_bytes())
    synthetic.draw_set(tmp_path, 2, workers=1)
    assert second.read_bytes() == expected


def test_only_the_images_are_left_in_the_folder(tmp_path):
    (tmp_path / ".synthetic_00000000.jpg.1234.tmp").write_bytes(b"of a process that was killed")
    paths = synthetic.draw_set(tmp_path, 3, workers=2)
    assert sorted(tmp_path.iterdir()) == paths


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"cannot draw synthetic images in .*file/images: Not a directory"):
        synthetic.draw_set(tmp_path / "file" / "images", 1, workers=1)


def test_a_read_only_folder_serves_when_all_images_are_there(tmp_path):
    paths = synthetic.draw_set(tmp_path, 2, workers=1)
    before = tmp_path.stat().st_mtime_ns
    assert synthetic.draw_set(Path(tmp_path), 2, workers=1) == paths
    assert tmp_path.stat().st_mtime_ns == before

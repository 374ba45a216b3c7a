"""Pictures with boxes."""

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest

from harness.answers import drawing
from harness.answers.drawing import save_pictures
from harness.data.annotations import COCO_CATEGORIES, Annotations, CocoImage
from harness.data.dataset import Dataset, Sample
from harness.errors import ConfigError, InferenceError

GREY = 128
SIZES = ((200, 300), (120, 160), (300, 200))


@pytest.fixture
def dataset(tmp_path):
    """Three plain grey images."""
    root = tmp_path / "images"
    root.mkdir()
    ids, names = zip(*COCO_CATEGORIES, strict=True)
    images, samples = [], []
    for number, (height, width) in enumerate(SIZES, 1):
        path = root / f"image{number}.png"
        cv2.imwrite(str(path), np.full((height, width, 3), GREY, np.uint8))
        images.append(CocoImage(number, path.name, height, width))
        samples.append(Sample(path, None))
    annotations = Annotations(tuple(images), (), ids, names)
    return Dataset("coco", root, tuple(samples), "", False, False, annotations)


def box(index, ymin, xmin, ymax, xmax, score=0.9, category=18):
    return struct.pack("<7f", index, ymin, xmin, ymax, xmax, score, category)


def drawn(file):
    """Whether each pixel differs from the grey image, but for the noise of JPEG."""
    image = cv2.imread(str(file)).astype(int)
    return np.abs(image - GREY).max(axis=2) > 40


def pictures(folder, dataset, payload, *, contiguous=False):
    """The first picture."""
    payloads = {0: payload, 1: b"", 2: b""}
    return save_pictures(folder, dataset, payloads, 1, is_contiguous=contiguous)[0]


def test_a_picture_is_named_by_sample_and_image_and_no_more_are_made_than_asked_for(dataset, tmp_path):
    payloads = dict.fromkeys(range(3), b"")
    files = save_pictures(tmp_path / "new" / "folder", dataset, payloads, 2, is_contiguous=False)
    assert files == [tmp_path / "new" / "folder" / name for name in ("0_image1.jpg", "1_image2.jpg")]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == files
    assert [cv2.imread(str(file)).shape[:2] for file in files] == list(SIZES[:2])
    assert all(file.read_bytes().startswith(b"\xff\xd8\xff") for file in files)
    assert len(save_pictures(tmp_path / "all", dataset, payloads, 99, is_contiguous=False)) == 3


def test_a_box_is_where_the_payload_says_with_its_label_above(dataset, tmp_path):
    # 200 x 300 px: top 100, left 60, bottom 180, right 240.
    changed = drawn(pictures(tmp_path, dataset, box(0, 0.5, 0.2, 0.9, 0.8)))
    assert changed[100, 65:235].all()
    assert changed[180, 65:235].all()
    assert changed[105:175, 60].all()
    assert changed[105:175, 240].all()
    assert not changed[110:170, 70:230].any()
    assert changed[90, 62:100].any()
    assert not changed[:70].any()
    assert not changed[190:].any()


@pytest.mark.parametrize(
    ("edges", "rows", "columns"),
    [
        ((0.0, 0.9, 0.3, 1.0), slice(2, 12), slice(210, 290)),
        ((-0.5, -0.5, 1.5, 1.5), slice(2, 12), slice(2, 80)),
        ((0.98, 0.99, 1.2, 1.4), slice(183, 193), slice(210, 290)),
    ],
    ids=["top right", "all over", "bottom right"],
)
def test_a_label_stays_in_the_picture_wherever_the_box_is(dataset, tmp_path, edges, rows, columns):
    changed = drawn(pictures(tmp_path, dataset, box(0, *edges, category=44)))
    assert changed[rows, columns].mean() > 0.8


def test_boxes_below_a_score_of_0_3_are_not_drawn(dataset, tmp_path):
    assert not drawn(pictures(tmp_path, dataset, box(0, 0.5, 0.2, 0.9, 0.8, score=0.29))).any()
    assert drawn(pictures(tmp_path, dataset, box(0, 0.5, 0.2, 0.9, 0.8, score=0.31))).any()


def test_only_the_20_best_boxes_are_drawn(dataset, tmp_path):
    small = [box(0, 0.5, 0.2, 0.6, 0.3, score=0.5 + n / 100) for n in range(20)]
    worst = box(0, 0.7, 0.6, 0.95, 0.9, score=0.45)
    assert not drawn(pictures(tmp_path / "a", dataset, worst + b"".join(small)))[140:, 170:].any()
    assert drawn(pictures(tmp_path / "b", dataset, worst + b"".join(small[1:])))[140:, 170:].any()


def test_classes_have_colours_of_their_own(dataset, tmp_path):
    colours = set()
    for category in (1, 2, 3, 18, 90):
        file = pictures(tmp_path / str(category), dataset, box(0, 0.5, 0.2, 0.9, 0.8, category=category))
        blue, green, red = cv2.imread(str(file))[178:182, 100:200].reshape(-1, 3).mean(axis=0) // 16
        colours.add((blue, green, red))
    assert len(colours) == 5


def test_a_contiguous_class_looks_like_the_category_that_it_means(dataset, tmp_path):
    # Class 12 is the 12th category, a stop sign, whose id is 13.
    edges = (0.5, 0.2, 0.9, 0.8)
    by_class = pictures(tmp_path / "a", dataset, box(0, *edges, category=12), contiguous=True)
    by_id = pictures(tmp_path / "b", dataset, box(0, *edges, category=13))
    unused = pictures(tmp_path / "c", dataset, box(0, *edges, category=12))
    assert by_class.read_bytes() == by_id.read_bytes() != unused.read_bytes()


def test_a_folder_that_cannot_be_written_is_one_line(dataset, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot write the picture .*file/0_image1\.jpg: ") as caught:
        pictures(tmp_path / "file", dataset, b"")
    assert "\n" not in str(caught.value)


def test_payloads_that_are_no_detections_are_refused(dataset, tmp_path):
    with pytest.raises(InferenceError, match="sample 0 has 4 bytes"):
        pictures(tmp_path, dataset, b"\0\0\0\0")


def test_the_truth_is_drawn_beside_what_was_found(dataset, tmp_path):
    entry = {"image_id": 1, "category_id": 18, "bbox": [60, 100, 180, 80]}
    noise = {"image_id": 1, "category_id": 18, "bbox": [5, 5, 20, 20], "score": 0.1}
    other = {"image_id": 2, "category_id": 18, "bbox": [0, 0, 120, 160]}
    truth = replace(dataset.coco, annotations=(entry, noise, other))
    payloads = {0: b"", 1: b"", 2: b""}
    (file,) = save_pictures(tmp_path, dataset, payloads, 1, is_contiguous=False, truth=truth)
    picture = drawn(file)
    height, width = picture.shape
    band = height - 200
    assert width == 2 * 300 + 4
    assert not picture[band + 2 :, :298].any()
    right = picture[band:, 304:]
    assert right[100, 65:235].all()
    assert right[180, 65:235].all()
    assert not right[:60].any()


def test_no_label_covers_another(dataset, tmp_path):
    edges = [(0.4 + n / 50, 0.3, 0.6 + n / 50, 0.6) for n in range(8)]
    marks = [drawing._mark((*box_of(one),), 18, {18: "dog"}, 0.9) for one in edges]
    image, taken = np.full((200, 300, 3), GREY, np.uint8), []
    for mark in marks:
        taken.append(drawing._room(image, mark, taken))
    for at, one in enumerate(taken):
        assert one is not None
        assert not any(drawing._meet(one, other) for other in taken[:at])
        assert one[1] >= 0
        assert one[3] <= 200


def box_of(edges):
    top, left, bottom, right = edges
    return left * 300, top * 200, (right - left) * 300, (bottom - top) * 200

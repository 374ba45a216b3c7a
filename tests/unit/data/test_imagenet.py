import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data import imagenet
from harness.data.dataset import Sample
from harness.data.imagenet import open_imagenet, open_synthetic
from harness.errors import ConfigError, DatasetError
from tests.real_data import PHOTOGRAPHS, needs_real_data


def jpeg(value=0):
    return cv2.imencode(".jpg", np.full((8, 8, 3), value, np.uint8))[1].tobytes()


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(value))
    return path


@pytest.fixture
def folder(tmp_path):
    """Four images and their list, which is not in the order of their names."""
    root = tmp_path / "images"
    for value, name in enumerate(["d.JPEG", "a.JPEG", "c.JPEG", "b.JPEG"]):
        image(root / name, value * 50)
    (root / "val_map.txt").write_text("d.JPEG 7\na.JPEG 0\nc.JPEG 999\nb.JPEG 7\n")
    return root


def opened(folder, *, list_file=None, count=None):
    return open_imagenet(folder, list_file=list_file, count=count)


def test_samples_are_in_the_order_of_the_list(folder):
    dataset = opened(folder)
    assert dataset.samples == (
        Sample(folder / "d.JPEG", 7),
        Sample(folder / "a.JPEG", 0),
        Sample(folder / "c.JPEG", 999),
        Sample(folder / "b.JPEG", 7),
    )
    assert (dataset.name, dataset.root) == ("imagenet", folder)
    assert dataset.has_labels
    assert not dataset.is_complete


def test_tabs_blank_lines_and_windows_line_ends_are_fine(folder):
    (folder / "val_map.txt").write_bytes("\ufeffd.JPEG\t 7\r\n\r\na.JPEG   0  \r\n".encode())
    assert [sample.label for sample in opened(folder).samples] == [7, 0]


def test_a_count_takes_the_first_of_the_list(folder):
    assert opened(folder, count=3).samples == opened(folder).samples[:3]
    (folder / "b.JPEG").unlink()
    assert len(opened(folder, count=3).samples) == 3


def test_more_than_there_are_says_how_many_there_are(folder):
    with pytest.raises(DatasetError, match=r"5 images wanted, but .*val_map\.txt has 4"):
        opened(folder, count=5)


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_an_impossible_option(folder, count):
    with pytest.raises(ConfigError, match=f"at least 1, not {count}"):
        opened(folder, count=count)
    with pytest.raises(ConfigError, match=f"at least 1, not {count}"):
        open_synthetic(folder, count)


def test_a_list_elsewhere_replaces_the_folders_own(folder, tmp_path):
    elsewhere = tmp_path / "mine.txt"
    elsewhere.write_text("b.JPEG 3\n")
    assert opened(folder, list_file=elsewhere).samples == (Sample(folder / "b.JPEG", 3),)


def test_a_listed_name_may_have_spaces(tmp_path):
    path = image(tmp_path / "great white  shark.JPEG")
    (tmp_path / "val_map.txt").write_text("great white  shark.JPEG\t2\n")
    assert opened(tmp_path).samples == (Sample(path, 2),)


@pytest.mark.parametrize("where", ["val", "n01440764", "val/n01440764"])
def test_listed_images_are_found_where_ilsvrc_puts_them(tmp_path, where):
    path = image(tmp_path / where / "ILSVRC2012_val_00000293.JPEG")
    (tmp_path / "val_map.txt").write_text("ILSVRC2012_val_00000293.JPEG 0\n")
    assert opened(tmp_path).samples == (Sample(path, 0),)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a.JPEG", r"val_map\.txt:2: wants two columns"),
        ("a.JPEG 3 4 x", r"val_map\.txt:2: the label must be .* not 'x'"),
        ("a.JPEG tench", r"val_map\.txt:2: the label must be .* not 'tench'"),
        ("a.JPEG 1000000000", r"val_map\.txt:2: the label must be .* not '1000000000'"),
        ("a.JPEG -1", r"val_map\.txt:2: the label must be .* not '-1'"),
        ("a.JPEG 3.0", r"val_map\.txt:2: the label must be .* not '3\.0'"),
        ("a.JPEG ٣", r"val_map\.txt:2: the label must be"),
        ("d.JPEG 8", r"gives d\.JPEG two labels: 7 and 8"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(folder, line, complaint):
    (folder / "val_map.txt").write_text(f"d.JPEG 7\n{line}\n")
    with pytest.raises(DatasetError, match=complaint):
        opened(folder)


def test_labels_may_be_those_of_a_model_with_more_classes_than_imagenet_has(folder):
    (folder / "val_map.txt").write_text("d.JPEG 1000\na.JPEG 999999999\n")
    assert [sample.label for sample in opened(folder).samples] == [1000, 999_999_999]


def test_a_list_that_git_lfs_has_not_fetched_is_named(folder):
    (folder / "val_map.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DatasetError, match=r"val_map\.txt is a Git LFS pointer, not the list: run `git lfs"):
        opened(folder)


def test_an_empty_an_unreadable_and_a_missing_list_are_told_apart(folder, tmp_path):
    (folder / "val_map.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"val_map\.txt is empty"):
        opened(folder)
    (folder / "val_map.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"cannot read the list .*val_map\.txt"):
        opened(folder)
    with pytest.raises(DatasetError, match=r"cannot read the list .*none\.txt.*No such file"):
        opened(folder, list_file=tmp_path / "none.txt")


def test_a_list_of_other_images_says_that_it_does_not_belong_here(folder, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("x.JPEG 1\ny.JPEG 2\n")
    with pytest.raises(
        DatasetError, match=r"other\.txt does not belong to .*not one of its 2 images .*x\.JPEG"
    ):
        opened(folder, list_file=other)


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"<html>", "is no JPEG, PNG, BMP, WebP, PPM, JPEG 2000 or TIFF"),
    ],
)
def test_an_unusable_image_is_named_with_how_many_of_how_many(folder, content, defect):
    for name in ("a.JPEG", "b.JPEG"):
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(DatasetError, match=rf"images/a\.JPEG {defect} \(2 of 4 images cannot be used\)"):
        opened(folder)


def test_a_name_that_no_file_can_have_is_named(folder):
    (folder / "val_map.txt").write_text("d.JPEG 7\na\0b 0\n")
    with pytest.raises(DatasetError, match=r"a\0b cannot be the name of a file \(1 of 2 images"):
        opened(folder)


def test_names_that_are_not_utf8_are_names_too(tmp_path):
    for number in range(1, 3):
        image(tmp_path / os.fsdecode(b"ILSVRC2012_val_%d\xff.JPEG" % number), number)
    assert len(opened(tmp_path).samples) == 2


def test_a_folder_in_the_place_of_an_image_is_named(folder):
    (folder / "a.JPEG").unlink()
    (folder / "a.JPEG").mkdir()
    with pytest.raises(DatasetError, match=r"a\.JPEG cannot be read \(Is a directory\)"):
        opened(folder)


def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(folder):
    (folder / "a.JPEG").unlink()
    os.mkfifo(folder / "a.JPEG")
    with pytest.raises(DatasetError, match=r"a\.JPEG is a pipe \(1 of 4 images"):
        opened(folder)


def test_a_missing_folder_and_one_without_images_say_what_belongs_there(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere does not exist; .*run\.sh fetch imagenet"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no images in .*val_map\.txt"):
        opened(tmp_path)


def test_png_images_are_taken(tmp_path):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    (tmp_path / "val_map.txt").write_text("a.png 1\n")
    assert len(opened(tmp_path).samples) == 1


@pytest.mark.parametrize("inside", ["", "val"])
def test_a_thousand_synset_folders_are_the_labels(tmp_path, inside):
    # The file with the lowest number lies in the last folder: MLPerf's order is that of the names.
    for label in range(1000):
        image(tmp_path / inside / f"n{label + 2000:08d}" / f"ILSVRC2012_val_{1000 - label:08d}.JPEG")
    dataset = opened(tmp_path, count=3)
    assert [(sample.path.name, sample.label) for sample in dataset.samples] == [
        ("ILSVRC2012_val_00000001.JPEG", 999),
        ("ILSVRC2012_val_00000002.JPEG", 998),
        ("ILSVRC2012_val_00000003.JPEG", 997),
    ]
    assert dataset.has_labels


def test_fewer_synset_folders_give_no_labels(tmp_path):
    for synset in ("n01440764", "n01443537"):
        image(tmp_path / synset / "x.JPEG")
    with pytest.raises(DatasetError, match=r"has 2 synset folders .*all 1000"):
        opened(tmp_path)


def test_a_listed_name_that_two_synset_folders_have_is_not_one_of_them(tmp_path):
    for synset in ("n01440764", "n01443537"):
        image(tmp_path / synset / "x.JPEG")
        image(tmp_path / synset / "unlisted.JPEG")
    image(tmp_path / "n01443537" / "y.JPEG")
    (tmp_path / "val_map.txt").write_text("y.JPEG 1\n")
    assert len(opened(tmp_path).samples) == 1
    (tmp_path / "val_map.txt").write_text("x.JPEG 0\ny.JPEG 1\n")
    with pytest.raises(DatasetError, match=r"names x\.JPEG, which is both .*: name folder and file"):
        opened(tmp_path)


@pytest.mark.parametrize("inside", ["", "val"])
def test_images_without_a_list_have_no_labels_and_say_so(tmp_path, inside, caplog):
    second = image(tmp_path / inside / "ILSVRC2012_val_00000002.JPEG")
    first = image(tmp_path / inside / "ILSVRC2012_val_00000001.JPEG")
    dataset = opened(tmp_path)
    assert dataset.samples == (Sample(first, None), Sample(second, None))
    assert not dataset.has_labels
    assert "accuracy cannot be measured" in caplog.text


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(folder, tmp_path):
    before = opened(folder).fingerprint
    assert opened(folder).fingerprint == before
    moved = folder.rename(tmp_path / "elsewhere")
    assert opened(moved).fingerprint == before


def test_another_list_label_order_count_or_file_gives_another_fingerprint(folder):
    seen = {opened(folder).fingerprint, opened(folder, count=3).fingerprint}
    for text in (
        "d.JPEG 8\na.JPEG 0\nc.JPEG 999\nb.JPEG 7\n",
        "a.JPEG 0\nd.JPEG 7\nc.JPEG 999\nb.JPEG 7\n",
    ):
        (folder / "val_map.txt").write_text(text)
        seen.add(opened(folder).fingerprint)
    content = bytearray((folder / "a.JPEG").read_bytes())
    content[-10] ^= 1
    (folder / "a.JPEG").write_bytes(content)
    seen.add(opened(folder).fingerprint)
    assert len(seen) == 5


def test_the_size_and_the_end_of_a_large_file_count(tmp_path):
    (tmp_path / "val_map.txt").write_text("a.JPEG 1\n")
    seen = set()
    for content in (jpeg() + bytes(20_000), jpeg() + bytes(20_001), jpeg() + bytes(19_999) + b"\x01"):
        (tmp_path / "a.JPEG").write_bytes(content)
        seen.add(opened(tmp_path).fingerprint)
    assert len(seen) == 3


@needs_real_data
def test_only_the_50000_images_with_their_published_labels_are_complete(caplog):
    published = PHOTOGRAPHS / "ilsvrc2012_val_map.txt"
    columns = [line.split() for line in published.read_text().splitlines()]
    samples = [Sample(Path(name), int(label)) for name, label in columns]
    assert imagenet._is_imagenet(samples)
    assert imagenet._is_imagenet([Sample(sample.path, None) for sample in samples])
    assert not imagenet._is_imagenet(samples[:-1])
    assert not imagenet._is_imagenet(samples[::-1])
    assert not imagenet._is_imagenet([samples[0]] * 50_000)
    assert not caplog.records
    wrong = [Sample(sample.path, (sample.label + 1) % 1000) for sample in samples]
    assert not imagenet._is_imagenet(wrong)
    assert "not with the labels that MLPerf uses" in caplog.text


@needs_real_data
def test_the_real_photographs_open(tmp_path):
    dataset = opened(PHOTOGRAPHS)
    assert len(dataset.samples) == 200
    assert [sample.label for sample in dataset.samples[:3]] == [0, 5, 10]
    with pytest.raises(DatasetError, match="does not belong"):
        opened(PHOTOGRAPHS, list_file=PHOTOGRAPHS / "ilsvrc2012_val_map.txt")


def test_synthetic_images_are_drawn_once_and_have_no_labels(tmp_path):
    first = open_synthetic(tmp_path, 4)
    assert (first.name, first.has_labels, first.is_complete) == ("synthetic", False, False)
    assert [sample.label for sample in first.samples] == [None] * 4
    modified = [sample.path.stat().st_mtime_ns for sample in first.samples]
    again = open_synthetic(tmp_path, 4)
    assert again == first
    assert [sample.path.stat().st_mtime_ns for sample in again.samples] == modified
    assert open_synthetic(tmp_path, 3).fingerprint != first.fingerprint

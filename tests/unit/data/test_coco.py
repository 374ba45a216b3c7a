"""COCO's annotations and images: what is read, what is refused, in which order."""

import json
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from harness.answers.boxes import with_detections_as_truth
from harness.data.annotations import (
    COCO_CATEGORIES,
    Annotations,
    CocoImage,
    is_val2017,
    of_files,
    read_annotations,
    subset,
    write_annotations,
)
from harness.data.coco import open_coco, open_synthetic_coco
from harness.data.imagenet import open_synthetic
from harness.data.sample_cache import preprocessed
from harness.errors import ConfigError, DatasetError, InferenceError
from harness.models.recipes import COCO_300
from tests import real_data
from tests.real_data import needs_real_data

DOCUMENT = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "d.jpg", "height": 10, "width": 20, "license": 3},
        {"id": 3, "file_name": "a.jpg", "height": 8, "width": 8},
        {"id": 5, "file_name": "b.jpg", "height": 30, "width": 40},
    ],
    "annotations": [
        {"id": 11, "image_id": 5, "category_id": 18, "bbox": [1, 2, 3.5, 4], "area": 9.5, "iscrowd": 0,
         "segmentation": [[1, 2, 3]]},
        {"id": 12, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person", "supercategory": "person"}],
}  # fmt: skip


def jpeg(height=8, width=8, value=0):
    return cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path):
    """Three images, annotated in an order that is neither that of the names nor that of the ids."""
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for image in DOCUMENT["images"]:
        (root / "val2017" / image["file_name"]).write_bytes(
            jpeg(image["height"], image["width"], image["id"])
        )
    write(root, DOCUMENT)
    return root


def write(root, document):
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(document))
    return file


def changed(key, at, **fields):
    """The document with one record changed; a field of `...` is taken out."""
    document = json.loads(json.dumps(DOCUMENT))
    document[key][at].update(fields)
    document[key][at] = {name: value for name, value in document[key][at].items() if value is not ...}
    return document


def opened(folder, *, list_file=None, count=None):
    return open_coco(folder, list_file=list_file, count=count)


def test_images_and_categories_keep_the_order_of_the_file(folder):
    annotations = read_annotations(folder / "annotations" / "instances_val2017.json")
    assert annotations.images == (
        CocoImage(7, "d.jpg", 10, 20),
        CocoImage(3, "a.jpg", 8, 8),
        CocoImage(5, "b.jpg", 30, 40),
    )
    assert (annotations.category_ids, annotations.category_names) == ((18, 1), ("dog", "person"))
    assert annotations.annotations[0] == {
        "id": 11, "image_id": 5, "category_id": 18, "bbox": [1, 2, 3.5, 4], "area": 9.5, "iscrowd": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], r"is not a COCO annotation file"),
        ({"images": [], "annotations": []}, r"it has no list 'categories'"),
        ({**DOCUMENT, "annotations": {}}, r"it has no list 'annotations'"),
        ({**DOCUMENT, "images": []}, r"lists no images"),
        ({**DOCUMENT, "images": ["a.jpg"]}, r"images\[0\] is 'a\.jpg', not a record"),
        (changed("images", 1, height=...), r"images\[1\] \(id 3\) has no 'height'"),
        (changed("images", 1, id=...), r"images\[1\] \(id missing\) has no 'id'"),
        (changed("images", 1, width=0), r"images\[1\] \(id 3\) has the width 0"),
        (changed("images", 1, file_name=""), r"images\[1\] \(id 3\) has the file_name ''"),
        (changed("images", 2, id=7), r"images\[2\] has the id 7, which another one has too"),
        (changed("annotations", 1, bbox=...), r"annotations\[1\] \(id 12\) has no 'bbox'"),
        (changed("annotations", 1, area=...), r"annotations\[1\] \(id 12\) has no 'area'"),
        (changed("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\] \(id 12\) has the bbox \[1, 2, 3\]"),
        (changed("annotations", 1, bbox=[1, 2, 3, float("nan")]), r"\(id 12\) has the bbox .*nan"),
        (changed("annotations", 1, id=-1), r"annotations\[1\] \(id -1\) has the id -1"),
        (changed("annotations", 1, id=11), r"annotations\[1\] has the id 11, which another one has too"),
        (
            changed("annotations", 1, image_id=99),
            r"annotation 12 has the image_id 99, which the file",
        ),
        (
            changed("annotations", 1, category_id=2),
            r"annotation 12 has the category_id 2, which the",
        ),
        (changed("categories", 0, name=...), r"categories\[0\] \(id 18\) has no 'name'"),
        (changed("categories", 1, id=18), r"categories\[1\] has the id 18"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_with_the_record(folder, document, complaint):
    file = write(folder, document)
    with pytest.raises(DatasetError, match=complaint) as caught:
        read_annotations(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        # Corners of the image of 40x30 pixels, and places in one that was twice as large.
        ([20, 10, 39, 29], r"1 of 2 boxes end outside of their images, the first in annotation 11"),
        ([60, 20, 10, 10], r"\(\[60, 20, 10, 10\] in 40x30 pixels\): they are corners, or of images of anot"),
    ],
)
def test_boxes_that_are_not_in_their_images_are_refused(folder, box, says):
    with pytest.raises(DatasetError, match=says):
        read_annotations(write(folder, changed("annotations", 0, bbox=box)))


def test_boxes_in_shares_of_the_image_are_refused(folder):
    document = changed("annotations", 0, bbox=[0.1, 0.1, 0.5, 0.25])
    document["annotations"][1]["bbox"] = [0.0, 0.5, 1.0, 0.5]
    with pytest.raises(DatasetError, match="no box is as large as 2 pixels, so they are shares of the image"):
        read_annotations(write(folder, document))


def test_few_boxes_that_reach_beyond_their_image_are_mistakes_of_their_own(folder):
    document = changed("annotations", 0, bbox=[30, 20, 11, 11])
    # A pixel: counted from 1. And one of eleven by more.
    assert len(read_annotations(write(folder, document)).annotations) == 2
    more = [{**document["annotations"][1], "id": number} for number in range(20, 30)]
    document["annotations"] += more
    document["annotations"][0]["bbox"] = [30, 20, 50, 50]
    assert len(read_annotations(write(folder, document)).annotations) == 12


def test_an_object_of_which_it_is_not_said_is_no_crowd(folder):
    document = changed("annotations", 1, iscrowd=...)
    assert [entry["iscrowd"] for entry in read_annotations(write(folder, document)).annotations] == [0, 0]


def test_images_that_are_turned_though_their_size_is_the_same_are_told_of(folder, caplog):
    for image in DOCUMENT["images"]:
        (folder / "val2017" / image["file_name"]).write_bytes(jpeg(image["height"], image["width"]))
    write(folder, DOCUMENT)
    open_coco(folder, list_file=None, count=None)
    assert "EXIF" not in caplog.text
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 8)).save(folder / "val2017" / "a.jpg", exif=exif)
    open_coco(folder, list_file=None, count=None)
    assert "1 of 3 images are turned or mirrored by their EXIF data, the first is " in caplog.text
    assert "a.jpg: boxes are taken to be of the image as it is shown" in caplog.text


def test_objects_that_are_numbered_from_zero_are_numbered_from_one(folder):
    document = changed("annotations", 1, id=0)
    found = read_annotations(write(folder, document)).annotations
    assert [entry["id"] for entry in found] == [1, 2]
    assert [entry["bbox"] for entry in found] == [entry["bbox"] for entry in document["annotations"]]
    document["annotations"][0]["id"] = 0
    with pytest.raises(DatasetError, match=r"annotations\[1\] has the id 0, which another one has too"):
        read_annotations(write(folder, document))


def test_annotations_that_git_lfs_has_not_fetched_are_named(folder):
    file = write(folder, DOCUMENT)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DatasetError, match=r"val2017\.json is a Git LFS pointer, not the annotations: run"):
        read_annotations(file)


def test_a_missing_a_foreign_and_a_cut_off_file_are_told_apart(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read the annotations .*none\.json: No such file"):
        read_annotations(tmp_path / "none.json")
    file = folder / "annotations" / "instances_val2017.json"
    whole = file.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"the file is cut off \(.*, line 1, column \d+\)"):
            read_annotations(file)
    file.write_text("file label\na.jpg 3\n")
    with pytest.raises(DatasetError, match=r"the file is not JSON \(.*line 1"):
        read_annotations(file)
    file.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(DatasetError, match="the file is not JSON"):
        read_annotations(file)


def test_a_subset_has_the_first_images_only_their_objects_and_every_category(folder):
    whole = read_annotations(folder / "annotations" / "instances_val2017.json")
    part = subset(whole, 2)
    assert [image.id for image in part.images] == [7, 3]
    assert [entry["id"] for entry in part.annotations] == [12]
    assert part.category_ids == whole.category_ids
    assert subset(whole, 3) == whole


def test_the_categories_are_coco_s_80_with_the_gaps_in_their_ids():
    ids = [category for category, _ in COCO_CATEGORIES]
    assert len(ids) == len({name for _, name in COCO_CATEGORIES}) == 80
    assert sorted(set(range(1, 91)) - set(ids)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


@needs_real_data
def test_the_categories_are_those_of_the_published_file():
    document = json.loads(real_data.COCO_ANNOTATIONS.read_text())
    assert tuple((entry["id"], entry["name"]) for entry in document["categories"]) == COCO_CATEGORIES


def detection(index, *box, category):
    return struct.pack("<7f", index, *box, 0.5, category)


@pytest.mark.parametrize(("contiguous", "dog", "person"), [(False, 18, 1), (True, 1, 2)])
def test_detections_become_boxes_in_pixels(folder, contiguous, dog, person):
    annotations = read_annotations(folder / "annotations" / "instances_val2017.json")
    payloads = {
        0: detection(0, 0.5, 0.25, 1.0, 0.5, category=dog),
        1: b"",
        2: detection(2, 0.0, 0.5, 0.5, 1.0, category=person) + detection(2, 0, 0, 1, 1, category=dog),
    }
    truth = with_detections_as_truth(annotations, payloads, contiguous)
    assert (truth.images, truth.category_ids) == (annotations.images, annotations.category_ids)
    # 10 x 20 and 30 x 40 pixels, height first.
    common = {"score": 0.5, "iscrowd": 0}
    assert truth.annotations == (
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [5, 5, 5, 5], "area": 25, **common},
        {"id": 2, "image_id": 5, "category_id": 1, "bbox": [20, 0, 20, 15], "area": 300, **common},
        {"id": 3, "image_id": 5, "category_id": 18, "bbox": [0, 0, 40, 30], "area": 1200, **common},
    )


def test_detections_of_unused_ids_are_no_truth_and_bad_payloads_are_refused(folder, tmp_path):
    annotations = read_annotations(folder / "annotations" / "instances_val2017.json")
    payloads = {0: detection(0, 0, 0, 1, 1, category=12), 1: b"", 2: detection(2, 0, 0, 1, 1, category=18)}
    truth = with_detections_as_truth(annotations, payloads, False)
    assert [(entry["id"], entry["category_id"]) for entry in truth.annotations] == [(1, 18)]
    write_annotations(truth, tmp_path / "truth.json")
    scored = tuple({**entry, "score": 0.5} for entry in read_annotations(tmp_path / "truth.json").annotations)
    assert scored == truth.annotations
    with pytest.raises(InferenceError, match="no answer for 1 of 3 samples, first 1"):
        with_detections_as_truth(annotations, {0: b"", 2: b""}, False)


def test_what_is_written_reads_back_equal_here_and_in_pycocotools(folder, tmp_path, capsys):
    annotations = read_annotations(folder / "annotations" / "instances_val2017.json")
    file = tmp_path / "new" / "instances_val2017.json"
    write_annotations(annotations, file)
    assert read_annotations(file) == annotations
    assert list(file.parent.iterdir()) == [file]
    loaded = COCO(str(file))
    capsys.readouterr()
    assert loaded.getImgIds() == [7, 3, 5]
    assert loaded.loadCats(loaded.getCatIds())[0]["name"] == "dog"
    assert loaded.loadAnns(loaded.getAnnIds(imgIds=[5]))[0]["bbox"] == [1, 2, 3.5, 4]


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_the_old_one(folder, tmp_path):
    annotations = read_annotations(folder / "annotations" / "instances_val2017.json")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"cannot write the annotations .*file/x\.json: "):
        write_annotations(annotations, tmp_path / "file" / "x.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DatasetError, match="Is a directory"):
        write_annotations(annotations, tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "file", "taken"]


def test_samples_are_in_the_order_of_the_annotation_file_annotated_or_not(folder):
    dataset = opened(folder)
    assert [sample.path for sample in dataset.samples] == [
        folder / "val2017" / name for name in ("d.jpg", "a.jpg", "b.jpg")
    ]
    assert [sample.label for sample in dataset.samples] == [None] * 3
    assert [image.file_name for image in dataset.coco.images] == ["d.jpg", "a.jpg", "b.jpg"]
    assert (dataset.name, dataset.has_labels, dataset.is_complete) == ("coco", True, False)


def test_a_count_takes_the_first_images_and_only_their_annotations(folder):
    dataset = opened(folder, count=2)
    assert len(dataset.samples) == len(dataset.coco.images) == 2
    assert [entry["id"] for entry in dataset.coco.annotations] == [12]
    with pytest.raises(DatasetError, match=r"4 images wanted, but .*instances_val2017\.json has 3; lower"):
        opened(folder, count=4)
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        opened(folder, count=0)


def test_images_may_lie_flat_and_annotations_elsewhere(folder, tmp_path):
    elsewhere = (folder / "annotations" / "instances_val2017.json").rename(tmp_path / "mine.json")
    dataset = opened(folder / "val2017", list_file=elsewhere)
    assert dataset.samples[0].path == folder / "val2017" / "d.jpg"
    with pytest.raises(DatasetError, match=r"cannot read the annotations .*none\.json"):
        opened(folder, list_file=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"<html>", "is no JPEG, PNG, BMP, WebP, PPM, JPEG 2000 or TIFF"),
    ],
)
def test_an_unusable_image_is_named_and_nothing_is_skipped(folder, content, defect):
    file = folder / "val2017" / "a.jpg"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"val2017/a\.jpg {defect} \(1 of 3 images cannot be used\)"):
        opened(folder)


def test_what_is_not_there_says_how_to_get_it(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere does not exist; `\./run\.sh fetch coco2017`"):
        opened(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match=r"no images in .*empty.*`\./run\.sh fetch coco2017`"):
        opened(empty)
    with pytest.raises(DatasetError, match=r"does not belong to .*not one of its 3 images .*d\.jpg"):
        opened(empty, list_file=folder / "annotations" / "instances_val2017.json")


def test_without_annotations_images_are_in_the_order_of_names_with_their_real_sizes(folder, caplog):
    (folder / "annotations" / "instances_val2017.json").unlink()
    dataset = opened(folder)
    assert [sample.path.name for sample in dataset.samples] == ["a.jpg", "b.jpg", "d.jpg"]
    assert dataset.coco.sizes_px == [(8, 8), (30, 40), (10, 20)]
    assert [image.id for image in dataset.coco.images] == [1, 2, 3]
    assert len(dataset.coco.category_ids) == 80
    assert not dataset.has_labels
    assert "accuracy cannot be measured" in caplog.text


def test_annotations_of_other_images_only_are_none(folder, caplog):
    write(folder, changed("annotations", 1, image_id=5))
    assert not opened(folder, count=2).has_labels
    assert "accuracy cannot be measured" in caplog.text


def test_the_size_of_a_photograph_taken_sideways_is_that_of_the_decoded_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    decoded = cv2.imread(str(tmp_path / "a.jpg")).shape[:2]
    assert opened(tmp_path).coco.sizes_px == [decoded] == [(40, 30)]


def test_a_header_without_a_size_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg()[:30])
    with pytest.raises(DatasetError, match=r"cannot read the size of .*a\.jpg"):
        opened(tmp_path)


def test_another_box_or_image_gives_another_fingerprint_another_place_or_outline_does_not(folder, tmp_path):
    whole = opened(folder).fingerprint
    write(folder, changed("annotations", 0, segmentation=[]))
    assert opened(folder).fingerprint == whole
    assert opened(folder.rename(tmp_path / "moved")).fingerprint == whole
    folder = tmp_path / "moved"
    seen = {whole, opened(folder, count=2).fingerprint}
    write(folder, changed("annotations", 0, bbox=[1, 2, 3.5, 5]))
    seen.add(opened(folder).fingerprint)
    (folder / "val2017" / "a.jpg").write_bytes(jpeg(8, 8, 200))
    seen.add(opened(folder).fingerprint)
    assert len(seen) == 4


@needs_real_data
def test_the_real_images_open(caplog):
    dataset = opened(real_data.COCO)
    assert (len(dataset.samples), len(dataset.coco.annotations)) == (80, 815)
    assert sum(entry["iscrowd"] for entry in dataset.coco.annotations) == 11
    assert dataset.samples[0].path.name == "000000532481.jpg"
    assert not dataset.is_complete
    decoded = [cv2.imread(str(sample.path)).shape[:2] for sample in dataset.samples[:10]]
    assert dataset.coco.sizes_px[:10] == decoded
    assert of_files([sample.path for sample in dataset.samples[:10]]).sizes_px == decoded
    assert not caplog.records


def test_only_5000_images_with_36781_objects_of_80_categories_are_complete():
    ids, names = zip(*COCO_CATEGORIES, strict=True)
    images = tuple(CocoImage(number, f"{number:012}.jpg", 480, 640) for number in range(5000))
    whole = Annotations(images, ({"id": 1},) * 36_781, ids, names)
    assert is_val2017(whole)
    assert not is_val2017(replace(whole, images=images[1:]))
    assert not is_val2017(replace(whole, annotations=whole.annotations[1:]))
    assert not is_val2017(replace(whole, category_names=names[::-1]))


def test_synthetic_images_have_categories_and_sizes_but_no_objects(tmp_path):
    dataset = open_synthetic_coco(tmp_path, 4)
    assert (dataset.name, dataset.has_labels, dataset.is_complete) == ("synthetic", False, False)
    assert [image.id for image in dataset.coco.images] == [1, 2, 3, 4]
    assert dataset.coco.sizes_px == [cv2.imread(str(sample.path)).shape[:2] for sample in dataset.samples]
    assert tuple(zip(dataset.coco.category_ids, dataset.coco.category_names, strict=True)) == COCO_CATEGORIES
    assert dataset.coco.annotations == ()
    assert dataset.samples == open_synthetic(tmp_path, 4).samples
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        open_synthetic_coco(tmp_path, 0)


def test_images_that_are_not_of_the_annotated_size_are_counted_and_the_first_is_named(folder, tmp_path):
    (folder / "val2017" / "b.jpg").write_bytes(jpeg(40, 30))
    complaint = r"b\.jpg: the image has 30x40 pixels .* annotations are of one of 40x30.* \(1 of 3 images"
    for _ in range(2):
        with pytest.raises(DatasetError, match=complaint):
            preprocessed(opened(folder), COCO_300, tmp_path / "cache")
    write(folder, changed("images", 2, height=40, width=30))
    assert preprocessed(opened(folder), COCO_300, tmp_path / "cache").exists()


def test_an_image_that_its_exif_data_turns_is_compared_as_it_is_decoded(folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(folder / "val2017" / "b.jpg", exif=exif)
    with pytest.raises(DatasetError, match=r"b\.jpg: the image has 30x40 pixels"):
        preprocessed(opened(folder), COCO_300, tmp_path / "cache")
    write(folder, changed("images", 2, height=40, width=30))
    assert preprocessed(opened(folder), COCO_300, tmp_path / "cache").exists()

"""COCO's figures, against pycocotools called directly and against MLCommons' reading of the log."""

import contextlib
import io
import json
import struct
from dataclasses import replace

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from harness.answers.boxes import with_detections_as_truth
from harness.answers.coco_scoring import mean_precision, score
from harness.data.annotations import (
    COCO_CATEGORIES,
    Annotations,
    CocoImage,
    read_annotations,
    subset,
    write_annotations,
)
from harness.errors import InferenceError
from tests.real_data import COCO_ANNOTATIONS, needs_real_data

IDS = [category for category, _ in COCO_CATEGORIES]


def record(index, ymin, xmin, ymax, xmax, score, category):
    return struct.pack("<7f", index, ymin, xmin, ymax, xmax, score, category)


def true_object(number, image_id, category, bbox, iscrowd=0):
    area = bbox[2] * bbox[3]
    return {
        "id": number, "image_id": image_id, "category_id": category, "bbox": bbox, "area": area,
        "iscrowd": iscrowd,
    }  # fmt: skip


@pytest.fixture
def small():
    """An image with a dog (18), one with a crowd of persons (1) and a kite (38), and one with nothing."""
    ids, names = zip(*COCO_CATEGORIES, strict=True)
    return Annotations(
        images=(CocoImage(7, "a", 100, 200), CocoImage(3, "b", 100, 100), CocoImage(5, "c", 50, 50)),
        annotations=(
            true_object(1, 7, 18, [20, 10, 100, 50]),
            true_object(2, 3, 1, [0, 0, 100, 50], iscrowd=1),
            true_object(3, 3, 38, [10, 60, 20, 20]),
        ),
        category_ids=ids,
        category_names=names,
    )


def perfect(small):
    """What a detector without a fault says of it: the crowd's box too, nothing on the third image."""
    dog = record(0, 0.1, 0.1, 0.6, 0.6, 0.9, 18)
    crowd = record(1, 0.0, 0.0, 0.5, 1.0, 0.8, 1)
    kite = record(1, 0.6, 0.1, 0.8, 0.3, 0.7, 38)
    return {0: dog, 1: crowd + kite, 2: b""}


def perturbed(annotations, *, contiguous=False):
    """Payloads of the real images: every true box shifted, every ninth missing, every 13th misnamed."""
    sample = {image.id: index for index, image in enumerate(annotations.images)}
    payloads = dict.fromkeys(range(len(annotations.images)), b"")
    for n, entry in enumerate(annotations.annotations):
        if n % 9 == 4:
            continue
        index = sample[entry["image_id"]]
        image = annotations.images[index]
        x, y, w, h = entry["bbox"]
        x += ((n * 7) % 11 - 5) / 40 * w
        y += ((n * 5) % 13 - 6) / 50 * h
        category = entry["category_id"] if n % 13 else IDS[n % 80]
        named = IDS.index(category) + 1 if contiguous else category
        box = (y / image.height, x / image.width, (y + h) / image.height, (x + w) / image.width)
        payloads[index] += record(index, *box, ((n * 37) % 101 + 1) / 128, named)
    return payloads


# pycocotools 2.0.11's `stats`, called directly (COCO(file), loadRes, COCOeval "bbox") with these detections.
ALL_80 = {
    "mAP": 0.403849, "AP50": 0.715575, "AP75": 0.373618,
    "AP_small": 0.473998, "AP_medium": 0.480077, "AP_large": 0.429539,
    "AR1": 0.352802, "AR10": 0.48, "AR100": 0.481348,
    "AR_small": 0.508043, "AR_medium": 0.50993, "AR_large": 0.473627,
}  # fmt: skip
# The same with `params.imgIds` set to the first 30 images.
FIRST_30 = {"mAP": 0.449595, "AP50": 0.797861, "AP75": 0.426025, "AR_large": 0.423073}


@needs_real_data
def test_the_twelve_figures_are_those_of_pycocotools_called_directly():
    annotations = read_annotations(COCO_ANNOTATIONS)
    found = score(perturbed(annotations), annotations, is_contiguous=False)
    assert list(found) == list(ALL_80)
    assert found == pytest.approx(ALL_80, abs=1e-6)


@needs_real_data
def test_contiguous_classes_score_the_same():
    annotations = read_annotations(COCO_ANNOTATIONS)
    found = score(perturbed(annotations, contiguous=True), annotations, is_contiguous=True)
    assert found == pytest.approx(ALL_80, abs=1e-6)


@needs_real_data
def test_a_subset_is_scored_on_its_own_images_only():
    annotations = read_annotations(COCO_ANNOTATIONS)
    payloads = perturbed(annotations)
    assert len(payloads) == 80  # those of the other 50 must not count
    found = score(payloads, subset(annotations, 30), is_contiguous=False)
    assert {name: found[name] for name in FIRST_30} == pytest.approx(FIRST_30, abs=1e-6)


def test_a_detector_without_a_fault_scores_one(small):
    found = score(perfect(small), small, is_contiguous=False)
    assert found["mAP"] == pytest.approx(1.0)
    assert found["AR100"] == pytest.approx(1.0)


def test_figures_of_sizes_that_do_not_occur_are_minus_one(small):
    found = score(perfect(small), small, is_contiguous=False)
    # The dog has 5,000 px: medium (32^2 to 96^2). The kite has 400: small.
    assert found["AP_large"] == found["AR_large"] == -1.0
    assert found["AP_small"] == found["AP_medium"] == pytest.approx(1.0)


def test_a_false_detection_on_an_image_without_objects_costs(small):
    payloads = perfect(small)
    payloads[2] = record(2, 0.1, 0.1, 0.6, 0.6, 0.99, 18)
    # The dog comes second of two: its precision is 1/2, and the kite's is 1.
    assert score(payloads, small, is_contiguous=False)["mAP"] == pytest.approx(0.75)


def test_boxes_are_shares_of_height_and_width_in_that_order(small):
    payloads = perfect(small)
    payloads[0] = record(0, 0.1, 0.1, 0.6, 0.6, 0.9, 18)
    assert score(payloads, small, is_contiguous=False)["mAP"] == pytest.approx(1.0)
    # 20 px down and 20 px to the right, of 50 and 100: IoU 0.6 * 0.8 / (2 - 0.48) = 0.316, a miss.
    payloads[0] = record(0, 0.3, 0.2, 0.8, 0.7, 0.9, 18)
    assert score(payloads, small, is_contiguous=False)["mAP"] == pytest.approx(0.5)


def test_no_detection_at_all_scores_zero(small):
    found = score(dict.fromkeys(range(3), b""), small, is_contiguous=False)
    assert found["mAP"] == found["AR100"] == found["AP_small"] == 0.0


def test_images_without_a_single_object_score_minus_one(small):
    found = score(perfect(small), replace(small, annotations=()), is_contiguous=False)
    assert found["mAP"] == -1.0


def test_detections_of_ids_that_coco_does_not_use_are_ignored(small):
    payloads = perfect(small)
    payloads[2] = record(2, 0.0, 0.0, 1.0, 1.0, 1.0, 12) + record(2, 0.0, 0.0, 1.0, 1.0, 1.0, 91)
    assert score(payloads, small, is_contiguous=False)["mAP"] == pytest.approx(1.0)


def test_nothing_is_printed_and_the_annotations_stay_as_they_are(small, capsys):
    before = json.dumps(small.annotations)
    score(perfect(small), small, is_contiguous=False)
    assert capsys.readouterr() == ("", "")
    assert json.dumps(small.annotations) == before


@pytest.mark.parametrize(
    ("index", "payload", "complaint"),
    [
        (1, None, r"no answer for 1 of 3 samples, first 1"),
        (1, b"\0" * 27, r"sample 1 has 27 bytes: detections are records of 28"),
        (2, record(1, 0, 0, 1, 1, 0.5, 1), r"sample 2 has a detection of sample 1"),
        (2, record(2, 0, 0, 1, 1, 0.5, 0), r"sample 2 has class 0, .* whole number from 1 to 80"),
        (2, record(2, 0, 0, 1, 1, 0.5, 81), r"sample 2 has class 81, .* from 1 to 80"),
        (2, record(2, 0, 0, 1, 1, 0.5, 1.5), r"sample 2 has class 1\.5, "),
        (2, record(2, 0, 0, 1, 1, float("nan"), 1), r"sample 2 has a detection with NaN"),
        (2, record(2, 0, 0, float("inf"), 1, 0.5, 1), r"sample 2 has a detection with NaN or infinite"),
        (2, record(float("nan"), 0, 0, 1, 1, 0.5, 1), r"sample 2 has a detection with NaN"),
    ],
)
def test_a_payload_that_is_no_list_of_its_samples_detections_is_named(small, index, payload, complaint):
    payloads = {0: record(0, 0.1, 0.1, 0.6, 0.6, 0.9, 17), 1: b"", 2: b""}
    payloads[index] = payload
    with pytest.raises(InferenceError, match=complaint) as caught:
        score(payloads, small, is_contiguous=True)
    assert "\n" not in str(caught.value)


def test_a_missing_index_is_a_missing_answer(small):
    with pytest.raises(InferenceError, match="no answer for 2 of 3 samples, first 1"):
        score({0: b""}, small, is_contiguous=True)


def write_log(payloads, file):
    """As LoadGen does: in the order in which samples were finished, which is any."""
    order = sorted(payloads, key=lambda index: (index * 37) % 80)
    entries = [
        {"seq_id": number, "qsl_idx": index, "data": payloads[index].hex().upper()}
        for number, index in enumerate(order)
    ]
    file.write_text(json.dumps(entries))


def map_as_mlcommons_reads_it(log, annotation_file, use_inv_map):
    """The mAP by the rules of MLCommons' accuracy-coco.py, with a reading of the log of its own."""
    document = json.loads(annotation_file.read_text())
    category_of_label = {k: entry["id"] for k, entry in enumerate(document["categories"], 1)}
    results, seen = [], []
    for entry in json.loads(log.read_text()):
        image = document["images"][entry["qsl_idx"]]
        seen.append(image["id"])
        for index, ymin, xmin, ymax, xmax, confidence, label in struct.iter_unpack(
            "<7f", bytes.fromhex(entry["data"])
        ):
            assert index == entry["qsl_idx"]
            left, top = xmin * image["width"], ymin * image["height"]
            size = [xmax * image["width"] - left, ymax * image["height"] - top]
            category = category_of_label[int(label)] if use_inv_map else int(label)
            results.append(
                {"image_id": image["id"], "category_id": category, "bbox": [left, top, *size],
                 "score": confidence}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.imgIds = seen
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


@needs_real_data
@pytest.mark.parametrize("contiguous", [False, True], ids=["direct ids", "--use-inv-map"])
def test_mlcommons_reading_of_the_log_gives_the_same_map(tmp_path, contiguous):
    annotations = read_annotations(COCO_ANNOTATIONS)
    payloads = perturbed(annotations, contiguous=contiguous)
    payloads[4] = payloads[17] = b""  # "data": "" still counts as an image
    write_log(payloads, tmp_path / "mlperf_log_accuracy.json")
    theirs = map_as_mlcommons_reads_it(tmp_path / "mlperf_log_accuracy.json", COCO_ANNOTATIONS, contiguous)
    ours = score(payloads, annotations, is_contiguous=contiguous)["mAP"]
    assert mean_precision(payloads, annotations, is_contiguous=contiguous) == pytest.approx(ours, abs=1e-12)
    assert 0.3 < ours < 0.4038  # the two emptied images cost something
    assert ours == pytest.approx(theirs, abs=1e-9)


@needs_real_data
def test_a_written_subset_is_scored_by_mlcommons_reading_as_by_ours(tmp_path):
    part = subset(read_annotations(COCO_ANNOTATIONS), 30)
    write_annotations(part, tmp_path / "instances_val2017.json")
    write_log(perturbed(part), tmp_path / "log.json")
    theirs = map_as_mlcommons_reads_it(tmp_path / "log.json", tmp_path / "instances_val2017.json", False)
    ours = score(perturbed(part), part, is_contiguous=False)["mAP"]
    assert ours == pytest.approx(theirs, abs=1e-9)


@needs_real_data
@pytest.mark.parametrize("contiguous", [False, True])
def test_detections_made_the_truth_agree_with_themselves(contiguous):
    annotations = read_annotations(COCO_ANNOTATIONS)
    payloads = perturbed(annotations, contiguous=contiguous)
    truth = with_detections_as_truth(annotations, payloads, contiguous)
    assert len(truth.annotations) == 724
    assert score(payloads, truth, is_contiguous=contiguous)["mAP"] == pytest.approx(1.0)

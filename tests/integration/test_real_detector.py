"""A real detector on real COCO images: serving scores the mAP that the source framework scores by itself."""

import contextlib
import functools
import io
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO as Annotations
from pycocotools.cocoeval import COCOeval

from tests.real_data import COCO, COCO_ANNOTATIONS, WEIGHTS, needs_real_data

FROZEN = WEIGHTS / "ssd_mobilenet_v1_0.75_coco_dequant_frozen.pb"
TFLITE = WEIGHTS / "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"

pytestmark = needs_real_data

# Each framework called directly, by a few lines that share nothing with the converters or the backends.
# `detect` answers one image: boxes (ymin, xmin, ymax, xmax), scores, COCO ids.
DIRECTLY = {
    ".pb": """
import tensorflow as tf
graph = tf.compat.v1.GraphDef.FromString(open(model, "rb").read())
with tf.Graph().as_default() as g:
    tf.import_graph_def(graph, name="")
session = tf.compat.v1.Session(graph=g)
names = ["num_detections:0", "detection_boxes:0", "detection_scores:0", "detection_classes:0"]
def detect(x):
    count, boxes, scores, classes = session.run(names, {"image_tensor:0": x})
    n = int(count[0])
    return boxes[0, :n], scores[0, :n], classes[0, :n]
""",
    ".tflite": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model)
interpreter.allocate_tensors()
outputs = [output["index"] for output in interpreter.get_output_details()]
def detect(x):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    boxes, classes, scores, count = [interpreter.get_tensor(index) for index in outputs]
    n = int(count[0])
    return boxes[0, :n], scores[0, :n], classes[0, :n] + 1
""",
}


def coco_300(path: Path) -> np.ndarray:
    """The reference's arithmetic: float32 resize, then the fraction is cut off."""
    picture = cv2.cvtColor(cv2.imread(str(path)).astype(np.float32), cv2.COLOR_BGR2RGB)
    return cv2.resize(picture, (300, 300)).astype(np.uint8)


def map_of(results: list[dict]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = Annotations(str(COCO_ANNOTATIONS))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def results_of(found: list[tuple], images: list[dict]) -> list[dict]:
    """pycocotools' form of (boxes, scores, ids) per image."""
    return [
        {
            "image_id": image["id"],
            "category_id": int(category),
            "score": float(score),
            "bbox": [
                float(left) * image["width"],
                float(top) * image["height"],
                float(right - left) * image["width"],
                float(bottom - top) * image["height"],
            ],
        }
        for image, (boxes, scores, ids) in zip(images, found, strict=True)
        for (top, left, bottom, right), score, category in zip(boxes, scores, ids, strict=True)
    ]


@functools.cache
def detected_directly(model: Path) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        return run_directly(model, json.loads(COCO_ANNOTATIONS.read_text())["images"], Path(folder))


def run_directly(model: Path, images: list[dict], tmp_path: Path) -> list[dict]:
    pictures = [coco_300(COCO / "val2017" / image["file_name"]) for image in images]
    np.save(tmp_path / "x.npy", np.stack(pictures))
    script = (
        "import pickle, sys, numpy as np\nmodel, folder = sys.argv[1:]\n"
        + DIRECTLY[model.suffix]
        + "x = np.load(folder + '/x.npy')\n"
        + "found = [detect(x[i:i + 1]) for i in range(len(x))]\n"
        + "pickle.dump(found, open(folder + '/y.pickle', 'wb'))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(model), str(tmp_path)], check=True)
    return results_of(np.load(tmp_path / "y.pickle", allow_pickle=True), images)


def logged(folder: Path, images: list[dict]) -> list[dict]:
    """The accuracy log, read as MLCommons' accuracy-coco.py does: records of 7 float32."""
    (log,) = folder.glob("*/accuracy/mlperf_log_accuracy.json")
    found: dict[int, tuple[list, list, list]] = {n: ([], [], []) for n in range(len(images))}
    for entry in json.loads(log.read_text()):
        for index, *box, score, category in struct.iter_unpack("<7f", bytes.fromhex(entry["data"])):
            assert index == entry["qsl_idx"]
            for values, value in zip(found[entry["qsl_idx"]], (box, score, category), strict=True):
                values.append(value)
    return results_of([found[n] for n in range(len(images))], images)


@pytest.mark.parametrize(
    ("weights", "platform", "golden"),
    [
        (FROZEN, "tensorflow", 0.2331),
        (FROZEN, "onnxruntime", 0.2331),
        (FROZEN, "openvino", 0.2331),
        (TFLITE, "tflite", 0.2020),
    ],
)
def test_a_real_detector_scores_through_triton_what_it_scores_directly(
    weights: Path, platform: str, golden: float, run_harness, repository_server, own_weights, tmp_path: Path
) -> None:
    ended = run_harness(
        *("--model", "ssd-mobilenet", "--platform", platform, "--weights", own_weights(weights)),
        *("--dataset", "coco-300", "--dataset-path", COCO, "--mode", "Accuracy"),
        *("--scenario", "Offline", "--save-images", "2"),
        *(("--precision", "fp32") if platform == "openvino" else ()),
        *("--url", repository_server.grpc_url, "--output", tmp_path / "results"),
    )
    assert ended.returncode == 0, ended.stderr
    (file,) = (tmp_path / "results").glob("*/results.json")
    accuracy = json.loads(file.read_text())["accuracy"]
    images = json.loads(COCO_ANNOTATIONS.read_text())["images"]
    directly = map_of(detected_directly(weights))
    assert round(accuracy["value"], 4) == round(directly, 4)
    assert accuracy["value"] == pytest.approx(map_of(logged(tmp_path / "results", images)), abs=1e-9)
    # Decoder and resize of another version move it a little; the data's README has the golden figures.
    assert directly == pytest.approx(golden, abs=0.005)
    assert (accuracy["total"], accuracy["truth"]) == (80, "data set")
    pictures = sorted((tmp_path / "results").glob("*/pictures/*.jpg"))
    # The truth is beside what was found, and each has its name above it.
    sizes = [cv2.imread(str(picture)).shape[:2] for picture in pictures]
    assert [width for _, width in sizes] == [2 * image["width"] + 4 for image in images[:2]]
    assert all(0 < height - image["height"] < 40 for (height, _), image in zip(sizes, images, strict=False))


def test_a_subset_is_scored_on_its_own_images_only(
    run_harness, repository_server, own_weights, tmp_path: Path
) -> None:
    ended = run_harness(
        *(
            "--model",
            "ssd-mobilenet",
            "--platform",
            "tflite",
            "--weights",
            own_weights(TFLITE),
            "--count",
            "10",
        ),
        *(
            "--dataset",
            "coco",
            "--dataset-path",
            COCO,
            "--mode",
            "Accuracy",
            "--scenario",
            "Offline",
        ),
        *("--url", repository_server.grpc_url, "--output", tmp_path),
    )
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.glob("*/results.json")
    accuracy = json.loads(file.read_text())["accuracy"]
    assert accuracy["total"] == 10
    # Ten images have fewer classes than eighty; were all eighty counted, most of their objects were missed.
    assert accuracy["value"] > 0.2020 / 2

"""A detector of a user's own that always answers what is annotated, so that its right figure is known."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

OBJECTS = [(18, [10, 5, 80, 20]), (90, [20, 30, 30, 15])]
"""Category id, and left, top, width, height in pixels of an image of 100x50 (width x height)."""


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    cv2.imwrite(str(folder / "one.png"), np.full((50, 100, 3), 90, np.uint8))
    document = {
        "images": [{"id": 1, "file_name": "one.png", "width": 100, "height": 50}],
        "categories": [{"id": number, "name": str(number)} for number in (1, 18, 90)],
        "annotations": [
            {
                "id": at,
                "image_id": 1,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for at, (category, box) in enumerate(OBJECTS, 1)
        ],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    return folder


def write(path: Path, classes: list[int]) -> Path:
    """A network for images of 200x200 that always answers the objects, as places and sizes in its pixels."""
    boxes = [[box[0] * 2, box[1] * 4, box[2] * 2, box[3] * 4] for _, box in OBJECTS]
    answers = {
        "detection_boxes": np.array([boxes], np.float32),
        "detection_scores": np.array([[0.9, 0.8]], np.float32),
        "detection_classes": np.array([classes], np.float32),
    }
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in answers.items()]
    # A server insists on an input that is used.
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["real"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["peak", "nought"], ["nothing"]),
        *(helper.make_node("Add", [f"{name}_is", "nothing"], [name]) for name in answers),
    ]
    constants = [numpy_helper.from_array(array, f"{name}_is") for name, array in answers.items()]
    constants.append(numpy_helper.from_array(np.array(0, np.float32), "nought"))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 200, 200, 3])
    graph = helper.make_graph(nodes, "detector", [image], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_detector_of_sizes_in_pixels_and_places_from_0_scores_what_is_right_once_it_is_said(
    run_harness, repository_server, coco: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "sized-detector.onnx", [1, 2])

    def run(*options: str):
        return run_harness(
            *("--model", "ssd-mobilenet", "--platform", "onnxruntime", "--weights", file),
            *("--dataset-path", coco, "--mode", "Accuracy", "--scenario", "Offline"),
            *("--url", repository_server.grpc_url, "--cache", tmp_path / "cache"),
            *("--output", tmp_path / "-".join(("results", *options)), *options),
        )

    silent = run()
    assert silent.returncode == 2
    (line,) = silent.stderr.splitlines()
    assert line.startswith(f"error: {file}: its boxes on test images are not corners")
    misread = run("--boxes", "yxyx,pixels")
    assert misread.returncode == 0, misread.stderr
    result = _result(tmp_path / "results---boxes-yxyx,pixels")
    assert result["accuracy"]["value"] == 0
    assert result["doubts"][-1].endswith("100.00% instead of 0.00% with --classes 0-79 --boxes xywh,pixels")
    said = run("--boxes", "xywh,pixels", "--classes", "0-79")
    assert said.returncode == 0, said.stderr
    assert "class numbers: 0-79: k is the k-th category of the annotation file, from 0 (command line)" in (
        said.stderr
    )
    result = _result(tmp_path / "results---boxes-xywh,pixels---classes-0-79")
    assert (round(result["accuracy"]["value"], 9), result["doubts"]) == (1.0, [])
    # The reference's keys, of an accuracy test alone too: two detections, both of a class that is there.
    entry = result["TestScenario.Offline"]
    assert (entry["good_items"], entry["total_items"], entry["accuracy"], entry["count"]) == (2, 2, 100.0, 1)
    assert 0 < entry["mean"] == entry["percentiles"]["80.0"] <= entry["took"]
    assert (entry["mAP"], entry["qps"]) == (pytest.approx(100.0), pytest.approx(1 / entry["took"]))
    detection = result["manifest"]["variant"]["detection"]
    assert (detection["box_order"], detection["are_pixels"]) == ("xywh", True)
    assert (detection["class_offset"], detection["is_contiguous"]) == (1, True)


def _result(folder: Path) -> dict:
    (file,) = folder.glob("*/results.json")
    return json.loads(file.read_text())

"""Every small input that once showed a fault, run as a user runs it; conftest prints one table of all.

They lie in ../shared/cases, each with a line that says what came of it before and what is wanted. Where the
figure was wrong without a word, the right one is beside it: by the framework alone, with OpenCV's pixels and
nothing of ours. What is drawn in other tests stands for the same kinds and runs for every change.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.real_data import REAL_DATA

CASES = REAL_DATA.parent / "cases"
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}"),
]

MARK = f"_of-test-{os.getpid()}"
"""As `own_weights` has it, which removes entries of such names."""


@dataclass(frozen=True)
class Ran:
    """What came of one command."""

    exit_code: int
    said: str
    """stderr."""
    result: dict[str, Any]
    """results.json; empty where there is none."""

    @property
    def error(self) -> str:
        """The one line of a refusal; empty where there is none."""
        lines = [line for line in self.said.splitlines() if line.startswith("error: ")]
        assert len(lines) <= 1, self.said
        return lines[0] if lines else ""

    @property
    def accuracy(self) -> float:
        return float(self.result["accuracy"]["value"])

    @property
    def doubts(self) -> str:
        return "; ".join(self.result["doubts"])

    def __str__(self) -> str:
        if self.error:
            # The file by its own name.
            line = re.sub(r"\S*/(\S+)-\d\d_of-test-\d+", r"\1", self.error.removeprefix("error: "))
            return f"exit {self.exit_code}, {line}"
        doubted = f", doubtful: {self.doubts}" if self.doubts else ""
        return f"{self.accuracy:.2%} {self.result['verdict']}{doubted}"


Bench = Callable[..., Ran]
Report = Callable[..., None]


@pytest.fixture
def bench(run_harness, repository_server, own_weights, tmp_path: Path) -> Bench:
    """`bench(case, file, platform, *options, model=…, data=…)`: an accuracy test alone, in Offline."""

    def run(
        case: str, file: str, platform: str, *options: object, model: str = "resnet50", data: str = "images"
    ) -> Ran:
        output = tmp_path / f"results-{len(list(tmp_path.iterdir()))}"
        images = tmp_path / data if (tmp_path / data).exists() else CASES / case / data
        ended: subprocess.CompletedProcess[str] = run_harness(
            *("--model", model, "--platform", platform, "--weights", taken(case, file, tmp_path)),
            *(("--dataset-path", images) if data else ("--dataset", "synthetic", "--count", 16)),
            *("--mode", "Accuracy", "--scenario", "Offline", "--url", repository_server.grpc_url),
            *("--cache", tmp_path / "cache", "--output", output, *options),
        )
        files = list(output.glob("*/results.json"))
        return Ran(ended.returncode, ended.stderr, json.loads(files[0].read_text()) if files else {})

    return run


def taken(case: str, name: str, folder: Path) -> Path:
    """A copy of a model, in a folder of the same name, that goes by a name of this case's own."""
    file = CASES / case / name
    copy = folder / file.parent.name / file.with_stem(f"{file.stem}-{case}{MARK}").name
    copy.parent.mkdir(exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, copy, dirs_exist_ok=True)
    else:
        shutil.copyfile(file, copy)
    if (data := file.with_name(f"{file.name}.data")).exists():
        shutil.copyfile(data, copy.with_name(data.name))
    return copy


@pytest.fixture
def report(record_property) -> Report:
    """`report(case, what was done, after, directly)`: a row of the table."""

    def row(case: str, what: str, after: object, directly: object = "") -> None:
        _, *parts = (CASES / case / "README").read_text().strip().split(" | ")
        before, wanted = (
            next(part.removeprefix(f"{word}: ") for part in parts if part.startswith(word))
            for word in ("got", "wanted")
        )
        record_property("case", (f"{case} {what}", before, str(after), str(directly), wanted))

    return row


def images_of(case: str) -> tuple[list[np.ndarray], np.ndarray]:
    """RGB pixels as they are, and labels; each image has one colour, so that no resizing changes it."""
    lines = (CASES / case / "images" / "val_map.txt").read_text().split("\n")
    pairs = [line.split() for line in lines if line]
    images = [cv2.imread(str(CASES / case / "images" / name))[..., ::-1] for name, _ in pairs]
    return images, np.array([int(label) for _, label in pairs])


def by_onnxruntime(case: str, file: str, mean: tuple[float, ...] = (0.0,)) -> np.ndarray:
    """The outputs of a classifier for all images, less `mean`."""
    import onnxruntime

    pixels = np.stack([cv2.resize(image, (224, 224)) for image in images_of(case)[0]])
    batch = (pixels - np.array(mean, np.float32)).astype(np.float32).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(CASES / case / file, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(batch)})[0])


def by_litert(case: str, file: str) -> np.ndarray:
    """The classes of a quantised MobileNet for all images, of numbers from -1 to 1."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(CASES / case / file))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    limits, classes = np.iinfo(source["dtype"]), []
    for image in images_of(case)[0]:
        real = cv2.resize(image, (224, 224)).astype(np.float32) / 127.5 - 1
        stored = np.clip(np.rint(real / scale) + zero_point, limits.min, limits.max)
        interpreter.set_tensor(source["index"], stored[None].astype(source["dtype"]))
        interpreter.invoke()
        classes.append(interpreter.get_tensor(target["index"]).argmax())
    return np.array(classes)


def right(classes: np.ndarray, labels: np.ndarray) -> str:
    return f"{(classes == labels).mean():.2%}"


IMAGENET_MEAN = (123.68, 116.78, 103.94)


@pytest.mark.parametrize(
    ("case", "file", "platform", "more"),
    [
        ("01", "model.onnx", "onnxruntime", {}),
        ("01", "model.onnx", "openvino", {}),
        ("05", "scores4d.onnx", "onnxruntime", {}),
        ("09", "tf2_zoo_like", "tensorflow", {"model": "ssd-mobilenet", "data": "coco"}),
        ("09", "tf2_zoo_like", "onnxruntime", {"model": "ssd-mobilenet", "data": "coco"}),
        ("19", "v[1]/saved", "tensorflow", {"model": "mobilenet"}),
        ("24", "count1.onnx", "onnxruntime", {"model": "ssd-mobilenet", "data": "coco"}),
        ("24", "count1.onnx", "openvino", {"model": "ssd-mobilenet", "data": "coco"}),
    ],
)
def test_what_failed_works(
    bench: Bench, report: Report, case: str, file: str, platform: str, more: dict[str, str]
) -> None:
    ran = bench(case, file, platform, **more)
    report(case, f"{file} on {platform}", ran)
    assert (ran.exit_code, ran.doubts) == (0, ""), ran.said
    assert ran.accuracy == pytest.approx(1.0)


def test_the_number_of_classes_does_not_decide_on_an_offset(bench: Bench, report: Report) -> None:
    directly = by_onnxruntime("02", "three.onnx", IMAGENET_MEAN).argmax(1)
    ran = bench("02", "three.onnx", "onnxruntime")
    report("02", "three.onnx", ran, right(directly, images_of("02")[1]))
    assert f"{ran.accuracy:.2%}" == right(directly, images_of("02")[1]) == "100.00%"


def test_indices_are_no_scores(bench: Bench, report: Report) -> None:
    best = by_onnxruntime("04", "top5.onnx", IMAGENET_MEAN)
    ran = bench("04", "top5.onnx", "onnxruntime")
    report("04", "top5.onnx", ran, f"{right(best[:, 0], images_of('04')[1])} by the first column")
    assert ran.exit_code == 2
    assert "not an image classifier" in ran.error


def test_pixels_as_they_are_have_a_recipe_and_another_is_doubted(bench: Bench, report: Report) -> None:
    labels = images_of("06")[1]
    wrong = by_onnxruntime("06", "raw255.onnx", IMAGENET_MEAN).argmax(1)
    directly = right(by_onnxruntime("06", "raw255.onnx").argmax(1), labels)
    silent = bench("06", "raw255.onnx", "onnxruntime")
    report("06", "raw255.onnx", silent, f"{right(wrong, labels)} so, {directly} of pixels as they are")
    assert f"{silent.accuracy:.2%}" == right(wrong, labels)
    assert "preprocessing: imagenet: " in silent.said
    assert "--preprocess names another" in silent.doubts
    told = bench("06", "raw255.onnx", "onnxruntime", "--preprocess", "scale=1")
    report("06", "raw255.onnx --preprocess scale=1", told, directly)
    assert (f"{told.accuracy:.2%}", told.doubts) == (directly, "") == ("100.00%", "")


@pytest.mark.parametrize("file", ["scale.tflite", "int8.tflite"])
def test_a_quantised_input_gets_what_the_recipe_makes(bench: Bench, report: Report, file: str) -> None:
    # Of 1001 classes, of which the first is a background.
    directly = right(by_litert("10", file) - 1, images_of("10")[1])
    ran = bench("10", file, "tflite", model="mobilenet")
    report("10", file, ran, directly)
    assert f"{ran.accuracy:.2%}" == directly == "100.00%"


def by_pycocotools(case: str, file: str) -> float:
    """The mAP of a detector whose classes count the annotation file's categories from 0."""
    import onnxruntime
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(CASES / case / "coco" / "annotations" / "instances_val2017.json"))
    (image,), categories = truth.dataset["images"], truth.getCatIds()
    session = onnxruntime.InferenceSession(CASES / case / file, providers=["CPUExecutionProvider"])
    pixels = cv2.imread(str(CASES / case / "coco" / "val2017" / image["file_name"]))[..., ::-1]
    feed = {session.get_inputs()[0].name: cv2.resize(pixels, (300, 300))[None]}
    names = ["detection_boxes", "detection_scores", "detection_classes"]
    boxes, scores, classes = (answer[0] for answer in session.run(names, feed))
    sides = np.array([image["height"], image["width"]] * 2)
    found = [
        {
            "image_id": image["id"],
            "category_id": categories[int(label)],
            "bbox": [left, top, right_side - left, bottom - top],
            "score": float(score),
        }
        for (top, left, bottom, right_side), score, label in zip(
            (boxes * sides).tolist(), scores, classes, strict=True
        )
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_another_numbering_of_classes_is_asked_for(bench: Bench, report: Report) -> None:
    directly = f"{by_pycocotools('07', 'from0.onnx'):.2%}"
    silent = bench("07", "from0.onnx", "onnxruntime", model="ssd-mobilenet", data="coco")
    report("07", "from0.onnx", silent, directly)
    # It cannot be told from an answer of class 0, which is no category id.
    assert (silent.exit_code, "say --classes 0-79 if" in silent.error) == (2, True), silent.said
    told = bench(
        *("07", "from0.onnx", "onnxruntime", "--classes", "0-79"), model="ssd-mobilenet", data="coco"
    )
    report("07", "from0.onnx --classes 0-79", told, directly)
    assert (f"{told.accuracy:.2%}", told.doubts) == (directly, "") == ("100.00%", "")


def test_a_repaired_image_is_preprocessed_anew(bench: Bench, report: Report, tmp_path: Path) -> None:
    shutil.copytree(CASES / "11" / "images", tmp_path / "images", copy_function=shutil.copyfile)
    (tmp_path / "images").chmod(0o755)
    for name in ("holed", "whole"):
        shutil.copyfile(CASES / "11" / f"{name}.JPEG", tmp_path / "images" / "a.JPEG")
        ran = bench("11", "../23/thousand.onnx", "onnxruntime")
        assert ran.exit_code == 0, ran.said
        arrays = sorted((tmp_path / "cache").rglob("samples.npy"), key=lambda file: file.stat().st_mtime)
        # Back to pixels; the centre of the image.
        mean = np.load(arrays[-1])[0].mean((1, 2)) + IMAGENET_MEAN
        pixels = cv2.imread(str(CASES / "11" / f"{name}.JPEG"))[13:188, 13:188, ::-1].mean((0, 1))
        words = ("mean pixel " + ", ".join(f"{part:.1f}" for part in each) for each in (mean, pixels))
        report("11", f"{name}.JPEG", *words)
        assert mean == pytest.approx(pixels, abs=1.0)


def test_labels_that_are_counted_from_1_are_doubted_with_the_remedy(bench: Bench, report: Report) -> None:
    labels = images_of("23")[1]
    directly = by_onnxruntime("23", "thousand.onnx", IMAGENET_MEAN).argmax(1)
    silent = bench("23", "thousand.onnx", "onnxruntime")
    shifted = f"{right(directly, labels)}; {right(directly, labels - 1)} shifted by 1"
    report("23", "thousand.onnx", silent, shifted)
    assert silent.accuracy == 0
    assert "100.00% would be right" in silent.doubts
    told = bench("23", "thousand.onnx", "onnxruntime", "--label-offset", 1)
    report("23", "thousand.onnx --label-offset 1", told)
    assert (told.accuracy, told.doubts) == (1.0, "")


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("half.pt", (), ""),
        ("only288.pt", (), "mat1 and mat2 shapes cannot be multiplied"),
        ("only288.pt", ("--preprocess", "size=288,scale=1/255"), ""),
        ("state_dict.pt", (), "a state dict, not TorchScript: name it .pth"),
        ("whole_module.pth", (), "save model.state_dict() (.pth) or TorchScript (.pt)"),
        ("wrapped.pth", (), "not the state dict of torchvision's resnet50"),
    ],
)
def test_pytorch_files_are_run_or_told_by_their_kind(
    bench: Bench, report: Report, file: str, options: tuple[str, ...], said: str
) -> None:
    ran = bench("17", file, "pytorch", *options, data="")
    report("17", " ".join((file, *options)), ran)
    if said:
        assert (ran.exit_code, said in ran.error) == (2, True), ran.said
        assert "\x1b" not in ran.error
    else:
        assert (ran.exit_code, ran.accuracy) == (0, 1.0), ran.said

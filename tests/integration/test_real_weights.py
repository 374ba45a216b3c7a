"""Real weights on real photographs: serving scores exactly what the source framework scores by itself.

The golden counts are those of the data's README; another decoder version may move them by an image or two.
"""

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.preprocess import load
from harness.models import MODELS
from harness.models.recipes import IMAGENET_MOBILENET, IMAGENET_PYTORCH, fit
from harness.models.spec import DType, Preprocess
from tests.real_data import PHOTOGRAPHS, WEIGHTS, needs_real_data

FROZEN = "mobilenet_v1_1.0_224_frozen.pb"
QUANT = "mobilenet_v1_1.0_224_quant.tflite"
SMALL_QUANT = "mobilenet_v1_0.75_192_quant.tflite"
SQUEEZENET = "squeezenet1.1_nchw.onnx"

pytestmark = needs_real_data

# Each framework called directly, by a few lines that share nothing with the converters or the backends.
DIRECTLY = {
    ".pb": """
import tensorflow as tf
graph = tf.compat.v1.GraphDef.FromString(open(model, "rb").read())
with tf.Graph().as_default() as g:
    tf.import_graph_def(graph, name="")
session = tf.compat.v1.Session(graph=g)
predict = lambda x: session.run("MobilenetV1/Predictions/Reshape_1:0", {"input:0": x})
""",
    ".tflite": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model)
interpreter.allocate_tensors()
def predict(x):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
""",
    ".onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(model)
predict = lambda x: session.run(None, {"input": x})[0]
""",
}


nightly = functools.partial(pytest.param, marks=pytest.mark.nightly)


def listed() -> list[tuple[Path, int]]:
    lines = (PHOTOGRAPHS / "val_map.txt").read_text().splitlines()
    return [(PHOTOGRAPHS / name, int(label)) for name, label in map(str.split, lines)]


@functools.cache
def predicted_directly(model: str, recipe: Preprocess) -> list[int]:
    """Arg-max of the source framework, one image at a time, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return run_directly(model, recipe, Path(folder))


def run_directly(model: str, recipe: Preprocess, tmp_path: Path) -> list[int]:
    np.save(tmp_path / "x.npy", np.stack([load(path, recipe) for path, _ in listed()]))
    script = (
        "import sys, numpy as np\nmodel, folder = sys.argv[1:]\n"
        + DIRECTLY[Path(model).suffix]
        + "x = np.load(folder + '/x.npy')\n"
        + "classes = [int(np.asarray(predict(x[i:i + 1])).reshape(-1).argmax()) for i in range(len(x))]\n"
        + "np.save(folder + '/y.npy', classes)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(WEIGHTS / model), str(tmp_path)], check=True)
    return [int(value) for value in np.load(tmp_path / "y.npy")]


def measured(run_harness, folder: Path, *arguments: object) -> dict[str, Any]:
    """The result of an accuracy test on the photographs."""
    ended = run_harness(
        *(*arguments, "--dataset-path", PHOTOGRAPHS, "--mode", "Accuracy"),
        *("--scenario", "Offline", "--output", folder),
    )
    assert ended.returncode == 0, ended.stderr
    (file,) = folder.glob("*/results.json")
    return dict(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("model", "weights", "platform", "dataset", "recipe", "golden"),
    [
        ("mobilenet", FROZEN, "tensorflow", "imagenet_mobilenet", IMAGENET_MOBILENET, 188),
        ("mobilenet", FROZEN, "onnxruntime", "imagenet_mobilenet", IMAGENET_MOBILENET, 188),
        nightly("mobilenet", FROZEN, "openvino", "imagenet_mobilenet", IMAGENET_MOBILENET, 188),
        nightly("mobilenet", FROZEN, "pytorch", "imagenet_mobilenet", IMAGENET_MOBILENET, 188),
        ("mobilenet", QUANT, "tflite", "imagenet_mobilenet", fit(IMAGENET_MOBILENET, dtype=DType.UINT8), 183),
        nightly(
            "mobilenet",
            SMALL_QUANT,
            "tflite",
            "imagenet_mobilenet",
            fit(IMAGENET_MOBILENET, dtype=DType.UINT8, size_px=(192, 192)),
            170,
        ),
        ("resnet50", SQUEEZENET, "onnxruntime", "imagenet_pytorch", IMAGENET_PYTORCH, 132),
        nightly("resnet50", SQUEEZENET, "openvino", "imagenet_pytorch", IMAGENET_PYTORCH, 132),
    ],
)
def test_real_weights_score_through_triton_what_they_score_directly(
    model, weights, platform, dataset, recipe, golden, run_harness, repository_server, own_weights, tmp_path
) -> None:
    exactly = ("--precision", "fp32") if platform == "openvino" else ()
    result = measured(
        run_harness,
        tmp_path / "results",
        *("--model", model, "--platform", platform, "--weights", own_weights(WEIGHTS / weights)),
        *("--dataset", dataset, "--url", repository_server.grpc_url, *exactly),
    )
    assert result["precision"] == ("fp32" if exactly else None)
    accuracy = result["accuracy"]
    classes = predicted_directly(weights, recipe)
    offset = 0 if weights == SQUEEZENET else -1
    directly = sum(found + offset == label for found, (_, label) in zip(classes, listed(), strict=True))
    assert (accuracy["good"], accuracy["total"]) == (directly, 200)
    assert abs(directly - golden) <= 2
    assert accuracy["truth"] == "data set"


def test_real_weights_keep_mlperfs_share_of_their_accuracy_in_whatever_openvino_chooses(
    run_harness, repository_server, own_weights, tmp_path: Path
) -> None:
    result = measured(
        run_harness,
        tmp_path,
        *("--model", "mobilenet", "--platform", "openvino", "--weights", own_weights(WEIGHTS / FROZEN)),
        *("--dataset", "imagenet_mobilenet", "--url", repository_server.grpc_url),
    )
    assert result["precision"] in ("bf16", "fp32")
    # 188 in fp32, in which the served model is the source.
    assert result["accuracy"]["good"] >= 188 * MODELS["mobilenet"].target.factor

import subprocess
import sys
from pathlib import Path

import pytest

from converters import configs
from converters.conversion import weights
from harness.machine.paths import MODEL_REPOSITORY, PROJECT_ROOT
from harness.models import MODELS


def _run(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_tracked_config_is_what_the_declarations_say():
    assert configs.differing(MODEL_REPOSITORY) == []


def test_there_is_a_config_for_every_model_and_platform():
    classifiers = ("onnxruntime", "openvino", "pytorch", "tensorflow", "tensorflow-savedmodel", "tflite")
    assert sorted(configs.expected_configs()) == [
        *(f"mobilenet_{platform}" for platform in classifiers),
        *(f"resnet50_{platform}" for platform in classifiers),
        *(f"ssd-mobilenet_{platform}" for platform in ("onnxruntime", "openvino", "tensorflow", "tflite")),
        *(f"ssd-resnet34_{platform}" for platform in ("onnxruntime", "openvino", "pytorch", "tensorflow")),
    ]


def test_a_config_that_differs_is_found_and_written_again(tmp_path):
    assert len(configs.write(tmp_path)) == 20
    edited = tmp_path / "resnet50_tflite" / "config.pbtxt"
    right = edited.read_bytes()
    edited.write_bytes(right + b"\n")
    check = _run("converters.configs", "--check", "--repository", tmp_path)
    assert check.returncode == 2
    assert f"differs: {edited}" in check.stderr
    assert configs.write(tmp_path) == [edited]
    assert edited.read_bytes() == right
    assert _run("converters.configs", "--check", "--repository", tmp_path).returncode == 0


def test_writing_configs_leaves_an_entrys_other_files_alone(tmp_path):
    model = tmp_path / "resnet50_tflite" / "1" / "model.tflite"
    model.parent.mkdir(parents=True)
    model.write_text("weights")
    configs.write(tmp_path)
    assert sorted(path.name for path in (tmp_path / "resnet50_tflite").iterdir()) == ["1", "config.pbtxt"]
    assert model.read_text() == "weights"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet51"], "unknown model 'resnet51' (did you mean resnet50?)"),
        (["--model", "resnet50", "--platform", "caffe"], "unknown platform 'caffe'"),
        (["--model", "resnet50", "--platform", ""], "unknown platform ''"),
        (
            ["--model", "resnet50", "--platform", "tflite", "--weights", "no.tflite"],
            "no.tflite does not exist",
        ),
        (["--model", "resnet50", "--weights", "README.md"], "README.md is no model file"),
        (["--model", "resnet50", "--platform", "tflite", "--weights", "README.md"], "takes .tflite, .pb"),
        (
            ["--model", "resnet50", "--recipe", "imagenet"],
            "are for your own files",
        ),
        (["--model", "resnet50", "--name", "x"], "--name is for one entry"),
        (
            ["--model", "resnet50", "--platform", "tflite", "--name", "mobilenet_tflite"],
            "--name mobilenet_tflite is the entry of a named model",
        ),
        (
            [
                "--model",
                "resnet50",
                "--platform",
                "tflite",
                "--weights",
                "seeded",
                "--repository",
                "/dev/null/x",
            ],
            "cannot write the model repository /dev/null/x",
        ),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(tmp_path, arguments, message):
    (tmp_path / "README.md").write_text("# not a model")
    arguments = [str(tmp_path / word) if word in ("README.md", "no.tflite") else word for word in arguments]
    if "--repository" not in arguments:
        arguments += ["--repository", str(tmp_path / "repository")]
    done = _run("converters", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_samples_that_cannot_be_read_are_named(tmp_path: Path):
    done = _run(
        "converters.source",
        *("--entry", tmp_path, "--samples", tmp_path / "x.npy", "--output", tmp_path / "y.npy"),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'x.npy'}: not a .npy file of samples")


def test_a_published_file_without_its_archive_is_noticed(tmp_path, monkeypatch):
    """As in the $MODEL_DIR of somebody who comes from the reference: it is not used, and that is said."""
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    published = MODELS["mobilenet"].sources["tensorflow"]
    assert weights.loose_member(published) is None
    frozen = tmp_path / "mobilenet_v1_1.0_224_frozen.pb"
    frozen.touch()
    assert weights.loose_member(published) == frozen
    (tmp_path / "mobilenet_v1_1.0_224.tgz").touch()
    assert weights.loose_member(published) is None
    # Published as it is, so always verified.
    (tmp_path / "resnet50_v1.pb").touch()
    assert weights.loose_member(MODELS["resnet50"].sources["tensorflow"]) is None

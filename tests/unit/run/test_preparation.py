"""What is checked before the converters, and how their processes are run; here a module that ends as told."""

import os
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ConfigError, ConversionError, DatasetError
from harness.run import converter, preparation, truth
from harness.run.config.resolution import resolve

ENDING = """
import os, sys
print("the answer")
print("first line", file=sys.stderr)
print(sys.argv[2], file=sys.stderr, flush=True)
number = int(sys.argv[1])
os.kill(os.getpid(), number) if number > 0 else sys.exit(-number)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def test_a_converters_log_is_passed_on_and_its_output_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert converter.run_converter("ending", "0", "last line") == "the answer\n"
    assert capsys.readouterr().err == "first line\nlast line\n"


def test_a_converters_error_is_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConversionError, match=r"^no weights$"):
        converter.run_converter("ending", "-2", "error: no weights")
    assert capsys.readouterr().err == "first line\n"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("9", r"^python -m ending was killed, probably because memory ran out: .* and run again$"),
        ("11", r"^python -m ending was ended by SIGSEGV$"),
    ],
)
def test_a_signal_that_ended_a_converter_is_the_reason_and_not_what_it_logged_last(
    capsys: pytest.CaptureFixture[str], number: str, reason: str
) -> None:
    with pytest.raises(ConversionError, match=reason):
        converter.run_converter("ending", number, "exporting")
    assert capsys.readouterr().err == "first line\nexporting\n"


@pytest.mark.parametrize("length", [None, 0, 100, 150])
def test_predictions_that_a_full_disk_has_cut_are_made_again(tmp_path: Path, length: int | None) -> None:
    file = tmp_path / "labels.npy"
    np.save(file, np.arange(9))
    assert truth._is_readable(file)
    if length is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:length])
    assert not truth._is_readable(file)


def test_a_folder_that_does_not_exist_is_found_before_a_model_is_converted(tmp_path: Path) -> None:
    weights = tmp_path / "no_model.onnx"
    weights.touch()
    words = {"model": "mobilenet", "platform": "onnxruntime", "weights": str(weights)}
    with pytest.raises(DatasetError, match=r"photos does not exist; `\./run\.sh fetch imagenet` says what"):
        preparation.prepare(resolve({**words, "dataset_path": str(tmp_path / "photos")}))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"max_batchsize": "65537"}, "resnet50 on onnxruntime takes at most 65536 samples at once"),
        ({"model": "ssd-resnet34", "max_batchsize": "2"}, "takes at most 1 sample at once"),
        ({"model": "ssd-resnet34", "preferred_batch": "1,2"}, "^--preferred-batch 2 is impossible"),
        ({"platform": "openvino", "gpus": "0"}, "^--gpus is impossible: resnet50 on openvino"),
    ],
)
def test_what_a_model_cannot_do_is_found_before_it_is_converted(words: dict[str, str], reason: str) -> None:
    asked = {"model": "resnet50", "platform": "onnxruntime", "dataset_path": "/no/such/folder", **words}
    with pytest.raises(ConfigError, match=reason):
        preparation.prepare(resolve(asked))

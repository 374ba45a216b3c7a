"""What is checked before the converters, and how their processes are run; here a module that ends as told."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from harness.errors import ConfigError, ConversionError, DatasetError, HarnessError
from harness.machine import paths
from harness.models import MODELS, get_variant
from harness.models.platforms import Platform
from harness.run import preparation, runner, truth
from harness.run.config.resolution import resolve
from harness.run.entries import converter

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


TELLS = """
import logging, os, sys
from harness.machine import progress
logging.basicConfig(level=os.environ["HARNESS_LOG"], format="%(message)s")
for number in progress.track(range(2), "exporting", 2):
    print("a word in between", file=sys.stderr, flush=True)
print("error: no luck", file=sys.stderr)
sys.exit(2)
"""


@pytest.mark.parametrize(("level", "is_told"), [("INFO", True), ("WARNING", False)])
def test_how_far_a_converter_is_is_shown_here_and_its_words_are_passed_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    level: str,
    is_told: bool,
) -> None:
    (tmp_path / "telling.py").write_text(TELLS)
    monkeypatch.setattr("harness.machine.progress._SHOW_AFTER_S", 0.0)
    caplog.set_level(level)
    with pytest.raises(ConversionError, match=r"^no luck$"):
        converter.run_converter("telling")
    told = [message for message in caplog.messages if message.startswith("exporting")]
    assert [message.partition(" after")[0] for message in told] == ["exporting: 1 of 2 (50%)"] * is_told
    assert capsys.readouterr().err == 2 * "a word in between\n"


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


@pytest.fixture
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATA_DIR", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(paths, "MODEL_REPOSITORY", tmp_path / "models")


RESNET = {"model": "resnet50", "platform": "onnxruntime"}
SSD = {"model": "ssd-resnet34", "platform": "onnxruntime"}
OFFICIALLY = {"mode": "Submission", "scenario": "Offline"}
SEEDED_ON_SYNTHETIC = "this will be no official MLPerf result: seeded weights; synthetic images"


def imagenet_of(folder: Path, images: int, labels: str = "val_map.txt") -> str:
    folder.mkdir()
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(images)]
    for name in names:
        (folder / name).touch()
    (folder / labels).write_text("".join(f"{name} 1\n" for name in names))
    return str(folder)


@pytest.mark.usefixtures("_no_environment")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        (OFFICIALLY, [SEEDED_ON_SYNTHETIC]),
        ({"round": "v6.1"}, [SEEDED_ON_SYNTHETIC]),
        ({**OFFICIALLY, "weights": "seeded"}, [SEEDED_ON_SYNTHETIC]),
        ({**OFFICIALLY, "weights": "official"}, ["this will be no official MLPerf result: synthetic images"]),
    ],
)
def test_what_will_keep_a_run_from_being_official_is_known_before_it(
    given: dict[str, str], said: list[str]
) -> None:
    assert list(preparation.foreseen(resolve({**RESNET, **given}))) == said


@pytest.mark.usefixtures("_no_environment")
def test_a_subset_and_images_without_labels_are_known_without_opening_any(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet50_v1.pb").touch()

    def foreseen(folder: str) -> tuple[str, ...]:
        # None of the images is one.
        return preparation.foreseen(resolve({**RESNET, **OFFICIALLY, "dataset_path": folder}))

    subset = imagenet_of(tmp_path / "subset", 3)
    assert foreseen(subset) == (
        "this will be no official MLPerf result: 3 images instead of the whole data set",
    )
    unlabelled = imagenet_of(tmp_path / "unlabelled", 3, labels="other.txt")
    assert foreseen(unlabelled) == ("this will be no official MLPerf result: images without labels",)
    # What the run will say itself.
    assert foreseen(str(tmp_path / "nothing")) == ()


@pytest.mark.usefixtures("_no_environment")
@pytest.mark.parametrize(
    ("model", "has", "wanted"),
    [
        (SSD, "val_map.txt", "annotations/instances_val2017.json"),
        (RESNET, "annotations/instances_val2017.json", "val_map.txt"),
    ],
)
def test_a_folder_of_the_environment_is_not_taken_for_another_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, str], has: str, wanted: str
) -> None:
    (tmp_path / has).parent.mkdir(exist_ok=True)
    (tmp_path / has).touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for ask in (preparation.foreseen, preparation.prepare):
        with pytest.raises(DatasetError, match=rf"^DATA_DIR is {tmp_path}, which has no {wanted}, and"):
            ask(resolve(model))
    assert preparation.foreseen(resolve({**model, "dataset": "synthetic"})) == ()
    # Whoever names it means it.
    assert preparation.foreseen(resolve({**model, "dataset_path": str(tmp_path)})) == ()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"url": "127.0.0.1:1"}, r"127\.0\.0\.1:1"),
        ({"cache": "/dev/full"}, "^cannot write samples to /dev/full: it is no folder; see --cache$"),
    ],
)
def test_what_a_run_needs_later_is_looked_at_before_a_model_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], complaint: str
) -> None:
    def convert(_config: object) -> None:
        raise AssertionError("converted")

    monkeypatch.setattr(runner, "prepare", convert)
    config = resolve({**RESNET, "output": str(tmp_path), "cache": str(tmp_path), **given})
    with pytest.raises(HarnessError, match=complaint):
        next(runner.run(config))


def test_a_folder_that_does_not_exist_is_found_before_a_model_is_converted(tmp_path: Path) -> None:
    weights = tmp_path / "no_model.onnx"
    weights.touch()
    words = {"model": "mobilenet", "platform": "onnxruntime", "weights": str(weights)}
    with pytest.raises(DatasetError, match=r"photos does not exist; `\./run\.sh fetch imagenet` says what"):
        preparation.prepare(resolve({**words, "dataset_path": str(tmp_path / "photos")}))


@pytest.mark.parametrize(
    ("offset", "label", "complaint"),
    [
        (-1, 1000, "has the label 1000, but the model answers 0 to 999: .* with --label-offset$"),
        (1, 0, "has the label 0, but the model answers 1 to 1001: "),
        (0, 1000, "^it has the class$"),
        (-1, 999, "^it has the class$"),
    ],
)
def test_a_label_for_which_the_model_has_no_class_is_refused_before_a_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, label: int, complaint: str
) -> None:
    def preprocessed(*_: object) -> None:
        raise DatasetError("it has the class")

    declared = get_variant(MODELS["mobilenet"], Platform.TENSORFLOW)
    assert declared.requested_outputs[0].numbers == 1001
    made = SimpleNamespace(variant=replace(declared, label_offset=offset))
    monkeypatch.setattr(preparation, "_convert", lambda _config: tmp_path)
    monkeypatch.setattr(preparation.manifest, "load", lambda _entry: made)
    monkeypatch.setattr(preparation.sample_cache, "preprocessed", preprocessed)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "val_map.txt").write_text(f"a.png {label}\n")
    words = {"model": "mobilenet", "platform": "tensorflow", "dataset_path": str(tmp_path)}
    with pytest.raises(DatasetError, match=complaint):
        preparation.prepare(resolve(words))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"model": "ssd-resnet34", "max_batchsize": "2"}, "takes at most 1 sample at once"),
        ({"model": "ssd-resnet34", "preferred_batch": "1,2"}, "^--preferred-batch 2 is impossible"),
        ({"platform": "openvino", "gpus": "0"}, "^--gpus is impossible: resnet50 on openvino"),
    ],
)
def test_what_a_model_cannot_do_is_found_before_it_is_converted(words: dict[str, str], reason: str) -> None:
    asked = {"model": "resnet50", "platform": "onnxruntime", "dataset_path": "/no/such/folder", **words}
    with pytest.raises(ConfigError, match=reason):
        preparation.prepare(resolve(asked))

"""Real conversions of the named models with seeded weights, by real frameworks; no server.

Of the pairs of a model and a platform, those of `tests.pairs`; `./run.sh test -m nightly` has the others.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from converters import source
from converters.conversion import convert as conversion
from converters.conversion import detection_parity, model_files, parity
from converters.conversion.convert import Request
from converters.inputs import fixed_inputs
from harness.answers.agreement import compare
from harness.answers.payloads import split
from harness.machine.paths import MODEL_REPOSITORY, PROJECT_ROOT
from harness.models import MODELS, manifest
from harness.models.manifest import SEEDED
from harness.models.platforms import Platform
from tests.pairs import PAIRS, WHOLE
from tests.seeded import seeded_file

Convert = Callable[..., subprocess.CompletedProcess[str]]
Converted = Callable[[str, Platform], Path]

# With the first test that asks for a pair; a conversion takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(1500)


def _command(repository: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "converters", "--repository", str(repository), *map(str, arguments)]


def _environment(weights: Path | None = None) -> dict[str, str]:
    """The project's own weights folder, where seeding is done once for all tests, or another."""
    return {**os.environ, "MODEL_DIR": str(weights)} if weights else dict(os.environ)


@pytest.fixture(scope="module")
def convert() -> Convert:
    def run(repository, *arguments):
        return subprocess.run(
            _command(repository, *arguments),
            cwd=PROJECT_ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=1400,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def converted(convert) -> Converted:
    """`converted(model, platform)`: the entry with seeded weights, made if that was not asked before."""
    # In the project's own repository, where the tests that serve them find the entries: made only once.
    made: set[str] = set()

    def entry(model: str, platform: Platform) -> Path:
        found = MODEL_REPOSITORY / MODELS[model].entry_name(platform)
        if found.name not in made:
            chosen = () if model in WHOLE else ("--platform", platform)
            done = convert(MODEL_REPOSITORY, "--model", model, "--weights", "seeded", *chosen)
            assert done.returncode == 0, done.stderr
            made.update(line.split(":")[0] for line in done.stdout.splitlines())
        return found

    return entry


@pytest.fixture(scope="module")
def repository(converted) -> Path:
    """The project's own, with every entry of mobilenet."""
    return converted("mobilenet", Platform.ONNXRUNTIME).parent


@pytest.mark.parametrize(("model", "platform"), PAIRS)
def test_every_model_converts_to_every_platform_and_equals_its_source(converted, model, platform):
    entry = converted(model, platform)
    found = manifest.load(entry)
    variant = MODELS[model].variants[platform]
    assert found.weights == "seeded"
    assert found.variant == variant
    # Images of 17 MB take seconds each.
    assert found.parity.samples == (3 if model == "ssd-resnet34" else 16)
    # Of boxes, rounding may decide one in thousands.
    assert found.parity.agreement >= (0.99 if variant.detection else 1.0)
    assert found.parity.max_abs_diff <= found.parity.tolerance == variant.tolerance
    tracked = MODEL_REPOSITORY / entry.name / "config.pbtxt"
    assert (entry / "config.pbtxt").read_bytes() == tracked.read_bytes()
    assert sorted(path.name for path in entry.iterdir()) == [
        "1",
        "MANIFEST.json",
        "config.pbtxt",
        "golden.npz",
    ]


@pytest.mark.parametrize(("model", "platform"), PAIRS)
def test_the_golden_samples_are_what_the_export_answers(converted, model, platform):
    entry = converted(model, platform)
    variant = MODELS[model].variants[platform]
    with np.load(entry / "golden.npz") as stored:
        golden = {name: stored[name] for name in stored}
    if variant.detection:
        check_golden_detections(entry, golden)
        return
    names = [output.name for output in variant.requested_outputs]
    assert sorted(golden) == sorted(["input", *(f"output:{name}" for name in names)])
    assert golden["input"].shape == (4, *variant.input.shape)
    with model_files.open_file(entry / "1" / platform.facts.model_filename, MODELS[model]) as graph:
        index = [output.name for output in graph.outputs].index(names[0])
        answer = graph.run(golden["input"])[index]
    assert answer == pytest.approx(golden[f"output:{names[0]}"], abs=1e-3)
    assert len(set(parity.classes(answer).tolist())) == 4


def check_golden_detections(entry: Path, golden: dict[str, np.ndarray]) -> None:
    facts = manifest.load(entry)
    count = 1 if facts.model == "ssd-resnet34" else 4
    assert sorted(golden) == ["detections", "input"]
    assert golden["input"].shape == (count, *facts.variant.input.shape)
    expected = split(golden["detections"], count)
    with model_files.open_file(
        entry / "1" / facts.variant.platform.facts.model_filename, MODELS[facts.model]
    ) as graph:
        found = detection_parity.run(graph, facts.variant, golden["input"], (1,) * count)
    agreement = compare(expected, found, 1e-3)
    assert agreement.share >= 0.99
    # Tens of boxes an image, found by both and so counted twice.
    assert agreement.detections >= 2 * 10 * count


@pytest.mark.parametrize(
    ("model", "platform"),
    [("mobilenet", "tensorflow"), ("resnet50", "tensorflow"), ("resnet50", "pytorch")],
)
def test_seeded_weights_tell_images_apart_by_far_more_than_rounding_errors(model, platform):
    """Only then does an agreement of 100 % mean something, and is it no matter of luck."""
    variant = MODELS[model].variants[Platform(platform)]
    inputs = fixed_inputs(variant.preprocess, 64, first=2000)
    with model_files.open_file(seeded_file(model, variant.source), MODELS[model]) as graph:
        (scores_at,) = (index for index, output in enumerate(graph.outputs) if output.shape)
        chunks = [graph.run(inputs[start : start + 16])[scores_at] for start in range(0, 64, 16)]
    scores = np.concatenate(chunks)
    if platform == "tensorflow":
        scores = np.log(scores)  # probabilities back to logits, but for a constant
    best, second = np.sort(scores, axis=1)[:, :-3:-1].T
    predicted = scores.argmax(axis=1)
    assert len(set(predicted.tolist())) >= 30
    assert (predicted + variant.label_offset >= 0).all()
    # The frameworks differ by up to 1e-4 in these units.
    assert (best - second).min() > 1e-3


@pytest.mark.parametrize(("model", "kind"), [("mobilenet", "onnxruntime"), ("resnet50", "pytorch")])
def test_the_source_framework_and_the_export_predict_the_same(converted, tmp_path, model, kind):
    entry = converted(model, Platform(kind))
    variant = MODELS[model].variants[Platform(kind)]
    inputs = fixed_inputs(variant.preprocess, 10, first=3000)
    np.save(tmp_path / "x.npy", inputs)
    command = [sys.executable, "-m", "converters.source", "--entry", entry, "--batch", "4"]
    command += ["--samples", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, timeout=600)
    labels = np.load(tmp_path / "y.npy")
    assert labels.dtype == np.int64
    with model_files.open_file(entry / "1" / Platform(kind).facts.model_filename, MODELS[model]) as graph:
        classes = graph.run(inputs)[0].argmax(axis=1)
    assert labels.tolist() == (classes + (-1 if model == "mobilenet" else 0)).tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "y.npy"]


def test_source_predictions_refuse_weights_that_changed(repository, tmp_path):
    entry = tmp_path / "mobilenet_tflite"
    shutil.copytree(repository / entry.name, entry)
    changed = tmp_path / "weights.pb"
    changed.write_bytes(b"other")
    facts = json.loads((entry / "MANIFEST.json").read_text())
    (entry / "MANIFEST.json").write_text(json.dumps({**facts, "weights_file": str(changed)}))
    inputs = fixed_inputs(MODELS["mobilenet"].variants[Platform.TFLITE].preprocess, 1)
    with pytest.raises(
        source.ConversionError, match=r"weights\.pb: checksum sha256:\w{64}, but .* convert it"
    ):
        source.predict(entry, inputs)


def test_samples_of_another_model_are_refused(repository):
    with pytest.raises(
        source.ConversionError, match=r"samples are uint8 \[8, 8, 3\], mobilenet_tflite takes"
    ):
        source.predict(repository / "mobilenet_tflite", np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("model", MODELS)
def test_openvino_gets_the_very_file_that_was_verified_for_onnx_runtime(converted, model):
    entries = [converted(model, platform) for platform in (Platform.ONNXRUNTIME, Platform.OPENVINO)]
    twin, ours = map(manifest.load, entries)
    assert ours.graph_sha256 == twin.graph_sha256
    assert manifest.digest(entries[1] / "1" / "model.onnx") == ours.graph_sha256
    assert (ours.parity, ours.weights_sha256) == (twin.parity, twin.weights_sha256)


def _stamp(repository: Path, entry: str) -> int:
    return (repository / entry / "MANIFEST.json").stat().st_mtime_ns


_WITHOUT_FRAMEWORKS = """
    import sys
    from converters.cli import main
    code = main(sys.argv[1:])
    loaded = {"tensorflow", "torch", "onnxruntime", "onnx", "ai_edge_litert"} & set(sys.modules)
    sys.exit(f"imported {loaded}" if loaded else code)
"""


@pytest.mark.parametrize(
    "model", [model if model in WHOLE else pytest.param(model, marks=pytest.mark.nightly) for model in MODELS]
)
def test_converting_again_does_nothing_and_imports_no_framework(converted, model):
    entries = [converted(model, platform) for platform in MODELS[model].variants]

    def stamps():
        return {path: path.stat().st_mtime_ns for entry in entries for path in entry.rglob("*")}

    before = stamps()
    for choice in ("auto", "seeded"):
        command = [sys.executable, "-c", textwrap.dedent(_WITHOUT_FRAMEWORKS)]
        command += ["--model", model, "--weights", choice, "--repository", str(MODEL_REPOSITORY)]
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("is up to date (seeded weights)") == len(entries)
    assert stamps() == before


def _copy(repository: Path, tmp_path: Path, entry: str) -> Path:
    shutil.copytree(repository / entry, tmp_path / entry)
    return tmp_path / entry


@pytest.mark.parametrize("damage", ["model", "golden", "config", "manifest"])
def test_a_damaged_entry_is_made_again(repository, tmp_path, damage):
    entry = _copy(repository, tmp_path, "mobilenet_tensorflow")
    original = (entry / "1" / "model.graphdef").read_bytes()
    if damage == "model":
        (entry / "1" / "model.graphdef").write_bytes(original[:-1])
    elif damage == "golden":
        (entry / "golden.npz").unlink()
    elif damage == "config":
        (entry / "config.pbtxt").write_text("")
    else:
        (entry / "MANIFEST.json").write_text("{")
    # In this process, which has imported the frameworks.
    conversion.convert(Request(MODELS["mobilenet"], Platform.TENSORFLOW, SEEDED, tmp_path))
    assert (entry / "1" / "model.graphdef").read_bytes() == original
    assert (entry / "golden.npz").exists()
    assert manifest.load(entry).weights == "seeded"
    assert (entry / "config.pbtxt").read_bytes() == (
        MODEL_REPOSITORY / entry.name / "config.pbtxt"
    ).read_bytes()


def test_force_converts_again(repository, tmp_path, convert):
    entry = _copy(repository, tmp_path, "mobilenet_tensorflow")
    before = _stamp(tmp_path, "mobilenet_tensorflow")
    arguments = ("--model", "mobilenet", "--platform", "tensorflow", "--weights", "seeded")
    done = convert(tmp_path, *arguments, "--force", "--print-entry")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{entry}\n"
    assert _stamp(tmp_path, "mobilenet_tensorflow") > before


@pytest.fixture
def midway(repository, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A forced conversion that has begun to build the new entry beside the old one."""
    _copy(repository, tmp_path, "mobilenet_onnxruntime")
    arguments = ("--model", "mobilenet", "--platform", "onnxruntime", "--weights", "seeded", "--force")
    process = subprocess.Popen(
        _command(tmp_path, *arguments),
        cwd=PROJECT_ROOT,
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".tmp-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def _is_intact(entry: Path) -> bool:
    return manifest.digest(entry / "1" / "model.onnx") == manifest.load(entry).graph_sha256


def test_a_killed_conversion_leaves_the_old_entry_working(midway, tmp_path, convert):
    midway.kill()
    midway.wait()
    assert _is_intact(tmp_path / "mobilenet_onnxruntime")
    assert list(tmp_path.glob(".tmp-*"))
    done = convert(tmp_path, "--model", "mobilenet", "--platform", "onnxruntime", "--weights", "seeded")
    assert "left behind by a killed conversion" in done.stderr
    assert "is up to date" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mobilenet_onnxruntime"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_exits_130_and_cleans_up(midway, tmp_path, number):
    midway.send_signal(number)
    _, log = midway.communicate(timeout=300)
    assert midway.returncode == 130
    assert log.endswith("interrupted; what was there before is untouched\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mobilenet_onnxruntime"]
    assert _is_intact(tmp_path / "mobilenet_onnxruntime")


def test_two_conversions_at_once_make_one_entry(repository, tmp_path):
    """They also make the same seeded weights, which were damaged and come out as in another folder before."""
    first = manifest.load(repository / "mobilenet_tensorflow")
    name = Path(first.weights_file).name
    damaged = tmp_path / "weights" / "seeded" / name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half")
    damaged.with_name(f"{name}.sha256").write_text(f"{first.weights_sha256}  {name}\n")
    arguments = ("--model", "mobilenet", "--platform", "tensorflow")
    both = [
        subprocess.Popen(
            _command(tmp_path / "repository", *arguments),
            cwd=PROJECT_ROOT,
            env=_environment(tmp_path / "weights"),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    logs = "".join(process.communicate(timeout=600)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert "warning: no published weights for mobilenet here: using seeded ones" in logs
    assert "./run.sh fetch mobilenet" in logs
    assert logs.count("is damaged; it is made again") == 1
    assert logs.count("making seeded weights") == 1
    assert logs.count("is up to date") == 1
    assert manifest.digest(damaged) == first.weights_sha256
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["mobilenet_tensorflow"]


def test_seeded_resnet50_state_dict_has_torchvisions_keys():
    import torch

    state = torch.load(seeded_file("resnet50", "pytorch"), weights_only=True)
    # torchvision's resnet50: 161 parameters and 106 running statistics.
    assert len(state) == 267
    assert tuple(state["conv1.weight"].shape) == (64, 3, 7, 7)
    assert tuple(state["layer1.0.downsample.0.weight"].shape) == (256, 64, 1, 1)
    assert tuple(state["layer4.2.conv2.weight"].shape) == (512, 512, 3, 3)
    assert tuple(state["layer4.2.bn3.running_var"].shape) == (2048,)
    assert tuple(state["fc.weight"].shape) == (1000, 2048)
    learned = (value.numel() for name, value in state.items() if "running_" not in name)
    assert sum(learned) == 25_557_032

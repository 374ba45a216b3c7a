"""Every platform is declared, and all that is asked of one agrees with its declaration."""

import re
from pathlib import Path

import pytest

from converters.conversion import convert, model_files, weights
from harness.bench.limit import frameworks
from harness.machine import environment
from harness.machine.paths import MODEL_REPOSITORY, PROJECT_ROOT
from harness.models import MODELS, platforms
from harness.models.model_config import ServerSettings, model_config
from harness.models.platforms import BY_ENDING, Platform
from harness.run.mlperf import reference
from harness.server.container import backends

# name: (backend, platform, file), by model_configuration.md and the backends' READMEs
TRITON = {
    "tensorflow": ("tensorflow", "tensorflow_graphdef", "model.graphdef"),
    "tensorflow-savedmodel": ("tensorflow", "tensorflow_savedmodel", "model.savedmodel"),
    "onnxruntime": ("onnxruntime", "onnxruntime_onnx", "model.onnx"),
    "openvino": ("openvino", "", "model.onnx"),
    "pytorch": ("pytorch", "pytorch_libtorch", "model.pt"),
    "tflite": ("tflite", "", "model.tflite"),
}
ALL = tuple(TRITON)
MADE_FROM = {
    # Of mobilenet, which is on every platform; as accepted when each module had a table of its own.
    "": (),
    ".pb": ALL,
    ".graphdef": (),
    ".onnx": ("onnxruntime", "openvino"),
    ".tflite": ("tflite",),
    ".pt": ("pytorch",),
    ".pth": ("pytorch",),
    ".pytorch": (),
    ".xml": ("openvino",),
    ".h5": (),
}
each_platform = pytest.mark.parametrize("platform", Platform)


def test_every_platform_is_declared_and_no_other() -> None:
    assert list(platforms._DECLARED) == list(Platform)
    assert {
        platform.value: (facts.triton_backend, facts.triton_platform, facts.model_filename)
        for platform, facts in platforms._DECLARED.items()
    } == TRITON


@pytest.mark.parametrize(("ending", "expected"), MADE_FROM.items())
def test_endings_lead_to_the_platforms_that_an_entry_can_be_made_for(
    ending: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / f"model{ending}"
    file.touch()
    spec = MODELS["mobilenet"]
    assert tuple(platform for platform in ALL if weights.accepts(spec, Platform(platform), file)) == expected


def test_every_platform_takes_a_saved_models_folder(tmp_path: Path) -> None:
    spec = MODELS["mobilenet"]
    assert tuple(platform for platform in spec.variants if weights.accepts(spec, platform, tmp_path)) == ALL


def test_a_model_that_is_published_as_onnx_is_made_from_it_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.touch()
    spec = MODELS["ssd-resnet34"]
    assert {str(platform) for platform in spec.variants if weights.accepts(spec, platform, file)} == {
        *("tensorflow", "onnxruntime", "openvino", "pytorch")
    }


def test_a_file_without_a_platform_is_served_by_its_own() -> None:
    own = {
        ".pb": "tensorflow",
        ".onnx": "onnxruntime",
        ".xml": "openvino",
        ".pt": "pytorch",
        ".pth": "pytorch",
        ".tflite": "tflite",
    }
    assert own == BY_ENDING
    assert {**own, ".pytorch": "pytorch"} == reference.PLATFORM_OF_SUFFIX


def test_no_ending_belongs_to_two_platforms() -> None:
    endings = [ending for platform in Platform for ending in platform.facts.endings]
    assert len(endings) == len(set(endings))


@each_platform
def test_a_platforms_own_files_can_be_served_and_read(platform: Platform) -> None:
    assert set(platform.facts.endings) <= set(platform.facts.made_from)
    # PyTorch's are of several kinds; a SavedModel is a folder.
    opened = {*model_files._OPENERS, Platform.PYTORCH, Platform.TENSORFLOW_SAVEDMODEL}
    assert platform in opened


@each_platform
def test_what_is_asked_of_every_platform_is_known(platform: Platform) -> None:
    assert platform in frameworks._OPENERS
    assert any(platform in spec.variants for spec in MODELS.values())
    request = convert.Request(MODELS["mobilenet"], platform, "seeded", MODEL_REPOSITORY)
    assert convert._tools(request).keys() == {"converters", "numpy", *platform.facts.tools}


def test_versions_of_these_tools_are_recorded_with_an_entry() -> None:
    exported = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")
    assert {str(platform): platform.facts.tools for platform in Platform} == {
        "tensorflow": ("tensorflow", "onnx"),
        "tensorflow-savedmodel": ("tensorflow",),
        "onnxruntime": exported,
        "openvino": exported,
        "pytorch": ("tensorflow", "onnx", "torch"),
        "tflite": ("tensorflow", "ai-edge-litert"),
    }


def test_a_twin_serves_the_very_file_of_the_other() -> None:
    twins = {platform: platform.facts.twin for platform in Platform if platform.facts.twin}
    assert twins == {Platform.OPENVINO: Platform.ONNXRUNTIME}
    for platform, other in twins.items():
        ours, theirs = platform.facts, other.facts
        assert ours.model_filename == theirs.model_filename
        # Its own kind of file beside them.
        assert set(ours.made_from) - set(ours.endings) == set(theirs.made_from)
        assert ours.tools == theirs.tools
        assert theirs.twin is None


def test_a_saved_model_takes_what_was_measured_with_the_graph() -> None:
    assert {
        platform: platform.facts.same_runtime_as for platform in Platform if platform.facts.same_runtime_as
    } == {Platform.TENSORFLOW_SAVEDMODEL: Platform.TENSORFLOW}


def test_some_platforms_have_a_choice_and_some_have_none() -> None:
    def those(fact: str) -> set[str]:
        return {platform.value for platform in Platform if getattr(platform.facts, fact)}

    assert those("chooses_precision") == {"openvino"}
    assert those("is_cpu_only") == {"openvino", "tflite"}
    assert those("refuses_other_batches") == {"onnxruntime", "openvino"}
    assert those("spin_parameter") == {"onnxruntime"}


@pytest.mark.parametrize(
    ("platform", "parameter"),
    [
        ("tensorflow", "TF_NUM_INTRA_THREADS"),
        ("tensorflow-savedmodel", "TF_NUM_INTRA_THREADS"),
        ("onnxruntime", "intra_op_thread_count"),
        ("openvino", "INFERENCE_NUM_THREADS"),
        ("pytorch", "INTRA_OP_THREAD_COUNT"),
        ("tflite", "num_threads"),
    ],
)
def test_threads_and_the_kind_of_instance_are_told_in_the_backends_own_words(
    platform: str, parameter: str
) -> None:
    config = model_config("x", MODELS["mobilenet"].variants[Platform(platform)], ServerSettings(threads=3))
    assert config.parameters[parameter].string_value == "3"
    kind = "KIND_CPU" if platform in ("openvino", "tflite") else "KIND_AUTO"
    assert config.instance_group[0].Kind.Name(config.instance_group[0].kind) == kind


@each_platform
def test_our_backend_reads_the_parameters_that_are_declared(platform: Platform) -> None:
    facts = platform.facts
    code = "".join(
        file.read_text(encoding="utf-8")
        for file in (PROJECT_ROOT / "backends" / facts.triton_backend).glob("*.py")
    )
    assert f'"{facts.thread_parameter}"' in code
    assert f'"{facts.spin_parameter}"' in code or not facts.spin_parameter


def test_each_backend_has_packages_in_the_servers_image_and_their_versions_in_results() -> None:
    # Told twice: the image's own code runs on the standard library alone.
    assert backends.PACKAGES.keys() == {platform.facts.triton_backend for platform in Platform}
    recorded = environment.describe().packages
    assert {packages[0] for packages in backends.PACKAGES.values()} <= recorded.keys()


def test_the_readme_lists_every_platform() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \(`[\w-]+`\) \| `([\w-]+)` \|", readme, re.MULTILINE)
    assert set(rows) == set(ALL)
    assert len(rows) == sum(len(spec.variants) for spec in MODELS.values())

"""What our backends refuse to load, and what they say then.

That a client hears it too, a test with a real server shows for each platform: integration/test_backends.py.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.models.model_config import RUN_BATCH
from harness.models.platforms import Platform
from tests import small_models
from tests.small_models import PLATFORMS, tensor_name

ALL = pytest.mark.parametrize("platform", PLATFORMS)


def writer(platform: Platform) -> Callable[[Path], None]:
    return lambda path: small_models.write(platform, path)


def refusal(batching: Any, load: Callable[..., Any], *entry: Any) -> str:
    with pytest.raises(batching.LoadError) as refused:
        load(*entry)
    return str(refused.value)


@ALL
def test_a_sound_entry_is_loaded(load: Any, platform: Platform) -> None:
    config, _ = load(platform, small_models.config_text(platform), writer(platform))
    assert (config.model, config.max_batch_size, config.gpu) == ("model", 8, None)
    assert [tensor.shape for tensor in (*config.inputs, *config.outputs)] == [(4,), (), (4,), (2,), ()]


@ALL
def test_a_corrupt_file_is_named(batching: Any, load: Any, platform: Platform, tmp_path: Path) -> None:
    config = small_models.config_text(platform)
    message = refusal(batching, load, platform, config, lambda path: path.write_bytes(b"no model" * 100))
    file = tmp_path / "model" / "1" / platform.facts.model_filename
    assert message.startswith(f"model: cannot load {file}: ")
    assert "\n" not in message


@ALL
def test_a_missing_file_is_named(batching: Any, load: Any, platform: Platform, tmp_path: Path) -> None:
    message = refusal(batching, load, platform, small_models.config_text(platform))
    assert message == f"model: {tmp_path}/model/1/{platform.facts.model_filename} does not exist"


@ALL
@pytest.mark.parametrize("kind", ["input", "output"])
def test_a_tensor_that_the_file_lacks_is_named(
    batching: Any, load: Any, platform: Platform, kind: str
) -> None:
    role, wrong = ("pixels", "INPUT__7") if kind == "input" else ("best", "OUTPUT__7")
    config = small_models.config_text(platform).replace(f'"{tensor_name(platform, role)}"', f'"{wrong}"')
    message = refusal(batching, load, platform, config, writer(platform))
    assert wrong in message
    assert f"/1/{platform.facts.model_filename}" in message


@pytest.mark.parametrize("platform", [Platform.ONNXRUNTIME, Platform.OPENVINO])
def test_an_onnx_file_with_a_batch_of_one_built_in_is_refused_for_larger_batches(
    batching: Any, load: Any, platform: Platform
) -> None:
    config = small_models.config_text(platform)
    message = refusal(batching, load, platform, config, lambda path: small_models.write_onnx(path, batch=1))
    assert "first axis of 1 instead of a free one" in message


@pytest.mark.parametrize(
    ("platform", "written", "found"),
    [
        (Platform.ONNXRUNTIME, "TYPE_INT32", "output 'doubled' is float32, "),
        (Platform.OPENVINO, "TYPE_INT32", "output 'doubled' is float32, "),
        (Platform.TFLITE, "TYPE_INT32", "output 'doubled' is float32, "),
        (Platform.ONNXRUNTIME, "dims: [4]", "input 'pixels' is [-1, 5], "),
    ],
)
def test_a_configuration_that_contradicts_the_file_is_refused(
    batching: Any, load: Any, platform: Platform, written: str, found: str
) -> None:
    wrong = {"TYPE_INT32": "TYPE_FP32", "dims: [4]": "dims: [5]"}[written]
    config = small_models.config_text(platform).replace(written, wrong)
    assert f"config.pbtxt says {found}" in refusal(batching, load, platform, config, writer(platform))


@pytest.mark.parametrize(
    ("platform", "parameter", "value", "complaint"),
    [
        (Platform.ONNXRUNTIME, "intra_op_thread_count", "-2", "intra_op_thread_count must be 0, 1, 2"),
        (Platform.ONNXRUNTIME, "execution_mode", "7", "execution_mode must be 0 or 1, not 7"),
        (Platform.OPENVINO, "INFERENCE_NUM_THREADS", "many", "INFERENCE_NUM_THREADS must be 0, 1, 2"),
        (Platform.OPENVINO, "NUM_STREAMS", "-1", "NUM_STREAMS must be AUTO, NUMA or a number, not '-1'"),
        (Platform.OPENVINO, "INFERENCE_PRECISION_HINT", "f8", "must be F32, BF16, not 'f8'"),
    ],
)
def test_an_impossible_parameter_is_refused(
    batching: Any, load: Any, platform: Platform, parameter: str, value: str, complaint: str
) -> None:
    text = f'parameters {{ key: "{parameter}" value {{ string_value: "{value}" }} }}'
    config = small_models.config_text(platform, text)
    assert complaint in refusal(batching, load, platform, config, writer(platform))


def test_an_impossible_part_of_a_batch_is_refused(batching: Any, load: Any) -> None:
    """By what answers the batches, which is made of what was loaded."""
    text = f'parameters {{ key: "{RUN_BATCH}" value {{ string_value: "all" }} }}'
    config = small_models.config_text(Platform.ONNXRUNTIME, text)
    loaded = load(Platform.ONNXRUNTIME, config, writer(Platform.ONNXRUNTIME))
    with pytest.raises(batching.LoadError, match="run_batch_size must be 0, 1, 2 …, not 'all'"):
        batching.Batcher(*loaded)


def test_a_missing_signature_is_refused_with_those_there_are(batching: Any, load: Any) -> None:
    platform = Platform.TENSORFLOW_SAVEDMODEL
    text = 'parameters { key: "TF_SIGNATURE_DEF" value { string_value: "train" } }'
    config = small_models.config_text(platform, text)
    message = refusal(batching, load, platform, config, writer(platform))
    assert "no signature 'train' (TF_SIGNATURE_DEF); it has serving_default" in message


@pytest.mark.parametrize("platform", [Platform.TENSORFLOW, Platform.PYTORCH])
def test_formats_that_do_not_name_their_tensors_need_them_in_the_configuration(
    batching: Any, framework: Any, platform: Platform
) -> None:
    declared = {"name": "model", "platform": platform.facts.triton_platform, "input": [], "output": []}
    with pytest.raises(batching.LoadError, match=r"config\.pbtxt must declare input and output"):
        framework(platform).complete(SimpleNamespace(as_dict=lambda: declared))

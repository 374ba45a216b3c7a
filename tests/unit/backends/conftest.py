"""Our backends' modules as a stub process imports them, without the server's compiled half."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from harness.machine.paths import BACKENDS_DIR
from harness.models.platforms import Platform
from harness.server import launch

_UTILS = "triton_python_backend_utils"
_FRAMEWORKS = {
    "onnxruntime": "onnx_session",
    "openvino": "ov_model",
    "pytorch": "torch_module",
    "tensorflow": "tf_session",
    "tflite": "litert_interpreter",
}


@pytest.fixture(scope="session")
def batching() -> Iterator[Any]:
    """What they share, beside the half of Triton's module that is Python."""
    (utils,) = (file for file in launch.find_wheel().python_backend if file.name == f"{_UTILS}.py")
    with pytest.MonkeyPatch.context() as patch:
        _import(patch, _UTILS, utils)
        yield _import(patch, "batching", BACKENDS_DIR / "batching.py")


@pytest.fixture(scope="session")
def framework(batching: Any) -> Iterator[Callable[[Platform], Any]]:
    """`framework(platform)`: the module that opens the platform's files."""
    imported: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        # They set these for a process of their own, unless they are set.
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")

        def module(platform: Platform) -> Any:
            backend = platform.facts.triton_backend
            if backend not in imported:
                name = _FRAMEWORKS[backend]
                imported[backend] = _import(patch, name, BACKENDS_DIR / backend / f"{name}.py")
                if backend == "pytorch":
                    patch.setattr(imported[backend], "_keep_freed_memory", lambda: None)
            return imported[backend]

        yield module


@pytest.fixture
def load(framework: Callable[[Platform], Any], tmp_path: Path) -> Callable[..., Any]:
    """`load(platform, config_text, write=None)`: what `initialize` does with an entry called `model`."""

    def entry(platform: Platform, config: str, write: Callable[[Path], object] | None = None) -> Any:
        file = tmp_path / "model" / "1" / platform.facts.model_filename
        file.parent.mkdir(parents=True)
        if write:
            write(file)
        message = text_format.Parse(config, model_config_pb2.ModelConfig())
        return framework(platform).load(
            {
                "model_config": json_format.MessageToJson(message, preserving_proto_field_name=True),
                "model_name": "model",
                "model_repository": str(tmp_path / "model"),
                "model_version": "1",
                "model_instance_kind": "CPU",
                "model_instance_device_id": "0",
            }
        )

    return entry


def _import(patch: pytest.MonkeyPatch, name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module

"""Triton's `onnxruntime` backend where NVIDIA's is not: same file name, tensor names and parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import batching
import numpy as np
import onnxruntime

_FILENAME = "model.onnx"
_DTYPES = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
# https://github.com/triton-inference-server/onnxruntime_backend, README, "Model Config Options"
_GRAPH_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_EXECUTION_MODES = {
    0: onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    1: onnxruntime.ExecutionMode.ORT_PARALLEL,
}
_SPINNING = "session.intra_op.allow_spinning"
_CPU = ["CPUExecutionProvider"]


def complete(config: Any) -> Any:
    """Fill the tensors that a configuration omits from the file."""
    file = batching.model_file(config, _FILENAME)
    session = _open(config.as_dict()["name"], file, onnxruntime.SessionOptions(), _CPU)
    return batching.complete(config, _tensors(session.get_inputs()), _tensors(session.get_outputs()))


def load(args: Mapping[str, str]) -> tuple[batching.Config, batching.Run]:
    """Open the file and compare it with the configuration."""
    config = batching.read_config(args, _FILENAME)
    session = _open(config.model, config.file, _options(config), _providers(config))
    batching.check_tensors(config, _tensors(session.get_inputs()), _tensors(session.get_outputs()))

    def run(feed: batching.Arrays, wanted: Sequence[str]) -> list[batching.Array]:
        return session.run(wanted, feed)

    return config, run


def _providers(config: batching.Config) -> list[Any]:
    if config.gpu is None:
        return _CPU
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise batching.LoadError(
            f"{config.model}: KIND_GPU, but this onnxruntime has no CUDA; use KIND_CPU (--device cpu)"
        )
    return [("CUDAExecutionProvider", {"device_id": config.gpu}), *_CPU]


def _options(config: batching.Config) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.integer("intra_op_thread_count")
    options.inter_op_num_threads = config.integer("inter_op_thread_count")
    mode = config.integer("execution_mode")
    if mode not in _EXECUTION_MODES:
        raise batching.LoadError(f"{config.model}: parameter execution_mode must be 0 or 1, not {mode}")
    options.execution_mode = _EXECUTION_MODES[mode]
    if config.graph_level not in _GRAPH_LEVELS:
        raise batching.LoadError(
            f"{config.model}: graph level must be -1, 0, 1 or 2, not {config.graph_level}"
        )
    options.graph_optimization_level = _GRAPH_LEVELS[config.graph_level]
    options.add_session_config_entry(_SPINNING, config.parameters.get(_SPINNING, "0"))
    return options


def _open(
    model: str, file: Path, options: onnxruntime.SessionOptions, providers: list[Any]
) -> onnxruntime.InferenceSession:
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:
        raise batching.unreadable(model, file, error) from error


def _tensors(arguments: Sequence[Any]) -> list[batching.FileTensor]:
    """The file's declarations; a symbolic size has a name, or none, instead of a number."""
    return [
        batching.FileTensor(
            argument.name,
            np.dtype(_DTYPES[argument.type]) if argument.type in _DTYPES else None,
            tuple(size if isinstance(size, int) else -1 for size in argument.shape),
        )
        for argument in arguments
    ]

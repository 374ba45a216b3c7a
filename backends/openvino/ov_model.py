"""Triton's `openvino` backend where NVIDIA's is not: ONNX or IR files, same tensor names and parameters.

Parameters: INFERENCE_NUM_THREADS, COMPILATION_NUM_THREADS, NUM_STREAMS, PERFORMANCE_HINT, HINT_BF16. Others
of the native backend, for batches that it cannot take otherwise (ENABLE_BATCH_PADDING), are not needed here.
Ours alone: INFERENCE_PRECISION_HINT (`f32`, `bf16`), OpenVINO's own name for it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import batching
import numpy as np
import openvino

_FILENAME = "model.xml"
_DEVICE = "CPU"
_DTYPES = {
    "boolean": np.bool_,
    "u8": np.uint8,
    "i8": np.int8,
    "i32": np.int32,
    "i64": np.int64,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}
_WEIGHTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
"""Kinds of operations that nearly all the time goes to; in the order of `_PRECISIONS`, the first that one of
them is executed in is the model's."""
_PRECISIONS = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}


def complete(config: Any) -> Any:
    """Fill the tensors that a configuration omits from the file."""
    file = batching.model_file(config, _FILENAME)
    model = _read(config.as_dict()["name"], file)
    return batching.complete(config, _tensors(model.inputs), _tensors(model.outputs))


def load(args: Mapping[str, str]) -> tuple[batching.Config, batching.Run]:
    """Open the file, compare it with the configuration, and compile it for this CPU."""
    config = batching.read_config(args, _FILENAME)
    if config.gpu is not None:
        raise batching.LoadError(
            f"{config.model}: KIND_GPU, but OpenVINO runs on the CPU here; use KIND_CPU (--device cpu)"
        )
    model = _read(config.model, config.file)
    inputs = [tensor.name for tensor in config.inputs]
    outputs = [tensor.name for tensor in config.outputs]
    batching.check_tensors(config, _tensors(model.inputs, inputs), _tensors(model.outputs, outputs))
    compiled = _compile(config, model)
    threads = str(compiled.get_property("INFERENCE_NUM_THREADS"))
    execution = {"precision": _precision(compiled), "threads": threads}
    return replace(config, execution=execution), _runner(compiled)


def _runner(compiled: openvino.CompiledModel) -> batching.Run:
    """One compiled model for every batch size.

    A free batch axis costs nothing: on two cores in bf16, mobilenet took 4.1 ms for one image and 113 ms for
    32, and compiled anew for just that size 4.2 and 113 ms.
    """
    request = compiled.create_infer_request()
    position = {name: index for index, port in enumerate(compiled.outputs) for name in port.names}

    def run(feed: batching.Arrays, wanted: Sequence[str]) -> list[batching.Array]:
        for name, array in feed.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        request.infer()
        # Copied (4 kB an image): the next run writes over them, which may be before Triton has read them.
        return [request.get_output_tensor(position[name]).data.copy() for name in wanted]

    return run


def _read(model: str, file: Path) -> openvino.Model:
    try:
        return openvino.Core().read_model(file)
    except Exception as error:
        raise batching.unreadable(model, file, error) from error


def _compile(config: batching.Config, model: openvino.Model) -> openvino.CompiledModel:
    try:
        return openvino.Core().compile_model(model, _DEVICE, _properties(config))
    except RuntimeError as error:
        raise batching.unreadable(config.model, config.file, error) from error


def _properties(config: batching.Config) -> dict[str, Any]:
    """OpenVINO's settings, from the parameters.

    Raises:
        LoadError: a value that is impossible.
    """
    # Every instance is a process, and each would pin its threads to the same first cores: two of one thread
    # answered 144 images a second instead of 300.
    properties: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
    for name in ("INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS"):
        if threads := config.integer(name):
            properties[name] = threads
    chosen = functools.partial(_choice, config)
    if hint := chosen("PERFORMANCE_HINT", ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")):
        properties["PERFORMANCE_HINT"] = hint
    if streams := chosen("NUM_STREAMS", ("AUTO", "NUMA"), str.isdecimal):
        properties["NUM_STREAMS"] = streams
    if chosen("HINT_BF16", ("YES",)):
        properties["INFERENCE_PRECISION_HINT"] = "bf16"
    if precision := chosen("INFERENCE_PRECISION_HINT", ("F32", "BF16")):
        properties["INFERENCE_PRECISION_HINT"] = precision.lower()
    return properties


def _choice(
    config: batching.Config,
    parameter: str,
    words: Sequence[str],
    is_other: Callable[[str], bool] = lambda _: False,
) -> str:
    """A parameter's value in capitals, one of `words` or as `is_other` accepts; empty where it is not set."""
    given = config.parameters.get(parameter, "")
    value = given.upper()
    if given and value not in words and not is_other(value):
        number = " or a number" if is_other("1") else ""
        raise batching.LoadError(
            f"{config.model}: parameter {parameter} must be {', '.join(words)}{number}, not {given!r}"
        )
    return value


def _precision(compiled: openvino.CompiledModel) -> str:
    """What the model is really executed in: hints are not always followed, nor for every operation."""
    operations = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    found = {
        info["runtimePrecision"].astype(str)
        for info in operations
        if info["layerType"].astype(str) in _WEIGHTED
    }
    return next((name for precision, name in _PRECISIONS.items() if precision in found), "fp32")


def _tensors(ports: Sequence[Any], declared: Sequence[str] = ()) -> list[batching.FileTensor]:
    """The file's declarations, each under the name that the configuration uses, should it have several."""
    tensors = []
    for port in ports:
        names = sorted(port.names) or [""]
        dtype = _DTYPES.get(port.element_type.get_type_name())
        shape = port.partial_shape
        tensors.append(
            batching.FileTensor(
                next((name for name in names if name in declared), names[0]),
                None if dtype is None else np.dtype(dtype),
                None
                if shape.rank.is_dynamic
                else tuple(axis.get_length() if axis.is_static else -1 for axis in shape),
            )
        )
    return tensors

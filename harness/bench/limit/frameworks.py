"""The frameworks called directly, with as little around them as each allows. The only module here with them.

Deliberately not the loaders of `backends/`: what those lose would be missing from both sides.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.models.platforms import Platform
from harness.models.spec import TensorSpec, Variant

Array = npt.NDArray[Any]
Call = Callable[[], Sequence[Any]]
"""Runs the graph on the batch that it was made for; returns the outputs."""
Bind = Callable[[Array], Call]
"""Makes the call of one batch, (n, *input.shape) in the input's dtype, which must stay where it is."""

SPINS = (Platform.ONNXRUNTIME, Platform.PYTORCH)
"""Platforms whose idle threads can be told to spin or to sleep between two operations."""

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_INT_MAX = 2**31 - 1


class DoesNotFit(Exception):
    """The graph does not take batches of this size."""


def open_graph(file: Path, variant: Variant, *, threads: int, is_spinning: bool) -> Bind:
    """Open an exported graph, for `threads` threads.

    Raises:
        Exception: the framework's own, where it cannot read the file.
    """
    return _OPENERS[variant.platform](file, variant, threads, is_spinning)


def check(call: Call, batch: int, variant: Variant) -> None:
    """Run a call once, and see that it answers for its whole batch.

    Raises:
        DoesNotFit: it does not run, or answers for fewer samples, as some graphs with a batch of 1 built in.
    """
    try:
        shapes = [np.shape(answer) for answer in call()]
    except Exception as error:
        raise DoesNotFit(f"a batch of {batch}: {error}") from error
    if variant.max_batch_size > 0 and any(shape[:1] != (batch,) for shape in shapes):
        raise DoesNotFit(f"a batch of {batch} is answered with {shapes}")


def _open_onnxruntime(file: Path, variant: Variant, threads: int, is_spinning: bool) -> Bind:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(is_spinning)))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def bind(batch: Array) -> Call:
        # Everything that a call needs is laid out beforehand: no look-up, no copy, no allocation of outputs.
        binding = session.io_binding()
        binding.bind_cpu_input(variant.input.name, batch)
        for spec in variant.requested_outputs:
            if -1 in spec.shape:
                binding.bind_output(spec.name)
                continue
            room = np.empty((len(batch), *spec.shape), spec.dtype.value)
            binding.bind_ortvalue_output(spec.name, onnxruntime.OrtValue.ortvalue_from_numpy(room))

        def call() -> Sequence[Any]:
            session.run_with_iobinding(binding)
            return _Outputs(binding)

        return call

    return bind


class _Outputs(Sequence[Any]):
    """A binding's outputs, copied only if somebody looks."""

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def __len__(self) -> int:
        return len(self._binding.get_outputs())

    def __getitem__(self, index: Any) -> Any:
        return self._binding.copy_outputs_to_cpu()[index]


def _open_openvino(file: Path, variant: Variant, threads: int, _: bool) -> Bind:
    import openvino

    core = openvino.Core()
    # Each of several processes would pin its threads to the same first cores.
    settings = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    compiled = core.compile_model(core.read_model(file), "CPU", settings)
    request = compiled.create_infer_request()

    def bind(batch: Array) -> Call:
        tensor = openvino.Tensor(batch, shared_memory=True)

        def call() -> Sequence[Any]:
            request.set_tensor(variant.input.name, tensor)
            request.infer()
            return [request.get_tensor(spec.name).data for spec in variant.requested_outputs]

        return call

    return bind


def _open_graphdef(file: Path, variant: Variant, threads: int, _: bool) -> Bind:
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(file.read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")

    def tensor(spec: TensorSpec) -> Any:
        return graph.get_tensor_by_name(spec.name if ":" in spec.name else f"{spec.name}:0")

    session = tf.compat.v1.Session(graph=graph, config=_tensorflow_options(tf, threads))
    return _bind_callable(
        session.make_callable([tensor(spec) for spec in variant.requested_outputs], [tensor(variant.input)])
    )


def _open_savedmodel(folder: Path, variant: Variant, threads: int, _: bool) -> Bind:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        session = tf.compat.v1.Session(graph=graph, config=_tensorflow_options(tf, threads))
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    signature = loaded.signature_def["serving_default"]
    outputs = [signature.outputs[spec.name].name for spec in variant.requested_outputs]
    inputs = [signature.inputs[variant.input.name].name]
    return _bind_callable(
        session.make_callable(
            [graph.get_tensor_by_name(name) for name in outputs],
            [graph.get_tensor_by_name(name) for name in inputs],
        )
    )


def _tensorflow_options(tf: Any, threads: int) -> Any:
    return tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, device_count={"GPU": 0})


def _bind_callable(run: Callable[[Array], Sequence[Any]]) -> Bind:
    return lambda batch: lambda: run(batch)


def _open_torchscript(file: Path, _: Variant, threads: int, is_spinning: bool) -> Bind:
    # OpenMP reads its environment when it is loaded. By default its threads spin for about a millisecond; if
    # told to be ACTIVE, for minutes, also while another path is measured.
    if not is_spinning:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    # Otherwise every activation is given back to the kernel and zeroed anew.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _INT_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _INT_MAX)
    torch.set_num_threads(threads)
    frozen = torch.jit.freeze(torch.jit.load(str(file)).eval())  # type: ignore[no-untyped-call]
    module: Any = torch.jit.optimize_for_inference(frozen)  # as our backend does

    def bind(batch: Array) -> Call:
        tensor = torch.from_numpy(batch)

        def call() -> Sequence[Any]:
            with torch.inference_mode():
                answer = module(tensor)
            return answer if isinstance(answer, tuple | list) else (answer,)

        return call

    return bind


def _open_tflite(file: Path, variant: Variant, threads: int, _: bool) -> Bind:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=threads)
    interpreter.allocate_tensors()
    # Our models have one input.
    source = interpreter.get_input_details()[0]["index"]
    outputs = [details["index"] for details in interpreter.get_output_details()]
    shape: tuple[int, ...] = ()

    def bind(batch: Array) -> Call:
        def call() -> Sequence[Any]:
            nonlocal shape
            if shape != batch.shape:
                shape = ()
                interpreter.resize_tensor_input(source, variant.input.batch_shape(len(batch)))
                interpreter.allocate_tensors()
                shape = batch.shape
            interpreter.set_tensor(source, batch)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in outputs]

        return call

    return bind


_OPENERS: dict[Platform, Callable[[Path, Variant, int, bool], Bind]] = {
    Platform.ONNXRUNTIME: _open_onnxruntime,
    Platform.OPENVINO: _open_openvino,
    Platform.TENSORFLOW: _open_graphdef,
    Platform.TENSORFLOW_SAVEDMODEL: _open_savedmodel,
    Platform.PYTORCH: _open_torchscript,
    Platform.TFLITE: _open_tflite,
}

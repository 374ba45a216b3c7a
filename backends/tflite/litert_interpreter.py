"""A `tflite` backend (LiteRT), which Triton has none of; in NVIDIA's container this folder is mounted.

Parameter: `num_threads`. Tensors go by their names in the file, with or without `:0`, or by the keys of the
file's first signature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import batching
import numpy as np
from ai_edge_litert import schema_py_generated
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers

_FILENAME = "model.tflite"
_DETECTION = b"TFLite_Detection_PostProcess"
_IDLE_CLASSES = b"idle classes"
"""A tensor that only our exports have (converters/tflite_detection.py)."""


def complete(config: Any) -> Any:
    """Fill the tensors that a configuration omits from the file; a first axis of 1 is a batch axis."""
    interpreter = _open(config.as_dict()["name"], batching.model_file(config, _FILENAME), None)
    tensors = [_file_tensors(_named(interpreter, kind)) for kind in ("input", "output")]
    return batching.complete(config, *tensors, fixed_batch=1)


def load(args: Mapping[str, str]) -> tuple[batching.Config, batching.Run]:
    """Open the file and compare it with the configuration."""
    config = batching.read_config(args, _FILENAME)
    if config.gpu is not None:
        raise batching.LoadError(
            f"{config.model}: KIND_GPU, but LiteRT has no GPU; use KIND_CPU (--device cpu)"
        )
    return config, _Runner(config).run


class _Runner:
    """An interpreter, and the shapes that its memory is laid out for."""

    def __init__(self, config: batching.Config) -> None:
        self._config = config
        self._open()
        inputs = _named(self._interpreter, "input", config.inputs)
        outputs = _named(self._interpreter, "output", config.outputs)
        present = _file_tensors(inputs), _file_tensors(outputs)
        if config.max_batch_size > 0:
            present = _free_batch(present[0]), _free_batch(present[1])
        batching.check_tensors(config, *present)
        self._inputs = {tensor.name: inputs[tensor.name]["index"] for tensor in config.inputs}
        self._outputs = {tensor.name: outputs[tensor.name]["index"] for tensor in config.outputs}
        self._can_resize = self._takes_batches()

    def run(self, feed: batching.Arrays, wanted: Sequence[str]) -> list[batching.Array]:
        """Run one batch; sample by sample where the file's batch size of 1 is built into its graph."""
        rows = len(next(iter(feed.values())))
        if self._config.max_batch_size == 0 or rows == 1 or self._can_resize:
            return self._run_at_once(feed, wanted)
        samples = [
            self._run_at_once({name: array[row : row + 1] for name, array in feed.items()}, wanted)
            for row in range(rows)
        ]
        return [np.concatenate(results) for results in zip(*samples, strict=True)]

    def _run_at_once(self, feed: batching.Arrays, wanted: Sequence[str]) -> list[batching.Array]:
        shapes = {name: array.shape for name, array in feed.items()}
        if shapes != self._shapes:
            self._allocate(shapes)
        for name, array in feed.items():
            self._interpreter.set_tensor(self._inputs[name], array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(self._outputs[name]) for name in wanted]

    def _open(self) -> None:
        threads = self._config.integer("num_threads") or None
        self._interpreter = _open(self._config.model, self._config.file, threads)
        if threads != 1 and _loses_a_class_to_threads(self._config.file):
            self._interpreter = _open(self._config.model, self._config.file, 1)
        self._shapes: dict[str, tuple[int, ...]] = {}

    def _allocate(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = {}
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name], shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def _takes_batches(self) -> bool:
        """Whether the graph can be resized; some hold a batch of 1, and fail or answer for one sample."""
        if self._config.max_batch_size < 2:
            return False
        feed = {tensor.name: _two_samples(tensor) for tensor in self._config.inputs}
        alone = [
            self._run_at_once({n: a[i : i + 1] for n, a in feed.items()}, [*self._outputs]) for i in (0, 1)
        ]
        try:
            together = self._run_at_once(feed, [*self._outputs])
        except (RuntimeError, ValueError):
            # What is left of an interpreter after a failed allocation cannot be relied on.
            self._open()
            return False
        one_by_one = [np.concatenate(results) for results in zip(*alone, strict=True)]
        return all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-3)
            for a, b in zip(one_by_one, together, strict=True)
        )


def _loses_a_class_to_threads(file: Path) -> bool:
    """Whether LiteRT's detection operation would, run by n threads, not find what is of class n.

    Seen in LiteRT 2.3: with `use_regular_nms`, the threads pass over that class. Our own exports have idle
    classes there, whose number is a constant that they subtract afterwards.
    """
    model = schema_py_generated.Model.GetRootAs(file.read_bytes(), 0)
    graph = model.Subgraphs(0)
    if any(graph.Tensors(index).Name() == _IDLE_CLASSES for index in range(graph.TensorsLength())):
        return False
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        if model.OperatorCodes(operator.OpcodeIndex()).CustomCode() == _DETECTION:
            options = flexbuffers.Loads(operator.CustomOptionsAsNumpy().tobytes())
            return bool(options.get("use_regular_nms"))
    return False


def _two_samples(tensor: batching.Tensor) -> batching.Array:
    """Two samples that differ, where any number will do; zeros where they might be positions."""
    shape = (2, *(max(size, 1) for size in tensor.shape))
    if tensor.dtype.kind == "f" or tensor.dtype.itemsize == 1:
        return np.random.default_rng(0).uniform(0, 127, shape).astype(tensor.dtype)
    return np.zeros(shape, tensor.dtype)


def _open(model: str, file: Path, threads: int | None) -> Interpreter:
    try:
        interpreter = Interpreter(str(file), num_threads=threads)
        # Some operations' outputs (detection's post-processing) have no shape before.
        interpreter.allocate_tensors()
        return interpreter
    except Exception as error:
        raise batching.unreadable(model, file, error) from error


def _named(
    interpreter: Interpreter, kind: str, declared: Sequence[batching.Tensor] = ()
) -> dict[str, Mapping[str, Any]]:
    """The file's inputs or outputs, each under the name that the configuration uses, where it uses one.

    Converters of saved models name tensors after their internals (`serving_default_x:0`), and put the names
    that a user knows into a signature.
    """
    keys: dict[int, str] = {}
    for signature in list(interpreter.get_signature_list())[:1]:
        runner = interpreter.get_signature_runner(signature)
        details = runner.get_input_details() if kind == "input" else runner.get_output_details()
        keys = {tensor["index"]: key for key, tensor in details.items()}
    names = {tensor.name for tensor in declared}
    result = {}
    for tensor in interpreter.get_input_details() if kind == "input" else interpreter.get_output_details():
        own = tensor["name"]
        key = keys.get(tensor["index"], own)
        result[next((name for name in (own, own.removesuffix(":0"), key) if name in names), key)] = tensor
    return result


def _file_tensors(named: Mapping[str, Mapping[str, Any]]) -> list[batching.FileTensor]:
    return [
        batching.FileTensor(name, np.dtype(tensor["dtype"]), tuple(int(n) for n in tensor["shape_signature"]))
        for name, tensor in named.items()
    ]


def _free_batch(tensors: list[batching.FileTensor]) -> list[batching.FileTensor]:
    """A first axis of 1 takes any batch: it can be resized, or run sample by sample."""
    return [replace(t, shape=(-1, *t.shape[1:])) if t.shape and t.shape[0] == 1 else t for t in tensors]

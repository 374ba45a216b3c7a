"""What our Triton backends share: reading the configuration, and answering one dynamic batch.

Triton hands a backend a list of requests, each with its own leading batch axis, and wants exactly one
response per request, in order. `Batcher` joins them once, runs the model once, and hands out slices; a
request that cannot be answered gets an error of its own and the rest of its batch still succeeds.

Runs inside the server's Python stub (there, `triton_python_backend_utils` has its compiled half) and imports
nothing of this project, so that the backend folders also work mounted in NVIDIA's container.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
Run = Callable[[Arrays, Sequence[str]], Sequence[Array]]
"""(input arrays by name, names of the wanted outputs) -> one array per wanted output, in that order."""

RUN_BATCH = "run_batch_size"
"""Parameter of a model: most rows of a batch that the framework is given at once; 0, all of them.

Where a CPU's caches hold the activations of few samples, those are calculated faster one part after the
other, while the server still hands over, and is handed back, many at once."""

DESCRIBE = "describe_execution"
"""Parameter of a request that asks not for an inference but for `Config.execution`.

The answer is an error, since this server's Python backend can send back text only in one."""


class LoadError(Exception):
    """The model cannot be served; the client of the model control API sees the message.

    Not `pb_utils.TritonModelException`: the stub adds that to the module only after it has imported ours.
    """


@dataclass(frozen=True)
class Tensor:
    """One declared input or output: without the batch axis, `reshape` applied, -1 for any size."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FileTensor:
    """One input or output as the model's file declares it; None where the file does not say."""

    name: str
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] | None = None
    """With the batch axis; -1 for any size."""


@dataclass(frozen=True)
class Config:
    """What a backend needs of the arguments that Triton gives `initialize`."""

    model: str
    file: Path
    platform: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, str]
    graph_level: int
    """`optimization { graph { level } }`, 0 where the configuration does not say."""
    gpu: int | None
    """Device of a KIND_GPU instance; None on the CPU."""
    execution: Mapping[str, str] = field(default_factory=dict)
    """What the framework chose for itself, to be told to those who ask (`DESCRIBE`)."""

    def integer(self, parameter: str) -> int:
        """Value of a whole-number parameter; 0 (the framework's own choice) where it is not set.

        Raises:
            LoadError: the value is not a whole number of 0 or more.
        """
        text = self.parameters.get(parameter, "0")
        if not text.isdecimal():
            raise LoadError(f"{self.model}: parameter {parameter} must be 0, 1, 2 …, not {text!r}")
        return int(text)

    def boolean(self, parameter: str, default: bool) -> bool:
        """Value of a true/false parameter.

        Raises:
            LoadError: the value is neither.
        """
        text = self.parameters.get(parameter, str(default)).lower()
        if text not in ("true", "false"):
            raise LoadError(f"{self.model}: parameter {parameter} must be true or false, not {text!r}")
        return text == "true"


def read_config(args: Mapping[str, str], default_filename: str) -> Config:
    """Read `initialize`'s arguments.

    Args:
        args: As Triton gives them.
        default_filename: What the native backend calls its file where the configuration does not say.

    Raises:
        LoadError: no file there, no tensors declared, or a data type that numpy lacks.
    """
    config = json.loads(args["model_config"])
    model = args["model_name"]
    filename = config.get("default_model_filename") or default_filename
    # Resolved: the server may have been given a link, and messages name the file.
    file = Path(args["model_repository"]).resolve() / args["model_version"] / filename
    if not file.exists():
        raise LoadError(f"{model}: {file} does not exist")
    for kind in ("input", "output"):
        if not config.get(kind):
            raise LoadError(f"{model}: config.pbtxt declares no {kind}")
    return Config(
        model=model,
        file=file,
        platform=config.get("platform", ""),
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(_tensor(model, fields) for fields in config["input"]),
        outputs=tuple(_tensor(model, fields) for fields in config["output"]),
        parameters={key: value["string_value"] for key, value in config.get("parameters", {}).items()},
        graph_level=int(config.get("optimization", {}).get("graph", {}).get("level", 0)),
        gpu=int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None,
    )


def _tensor(model: str, fields: Mapping[str, Any]) -> Tensor:
    dtype = pb_utils.TRITON_STRING_TO_NUMPY.get(fields["data_type"])
    if dtype is None:
        raise LoadError(f"{model}: data type {fields['data_type']} of {fields['name']!r} is not supported")
    shape = fields["reshape"].get("shape", []) if "reshape" in fields else fields["dims"]
    return Tensor(fields["name"], np.dtype(dtype), tuple(int(size) for size in shape))


def check_tensors(config: Config, inputs: Sequence[FileTensor], outputs: Sequence[FileTensor]) -> None:
    """Compare what the configuration declares with what the model's file has.

    Raises:
        LoadError: names the tensor that is missing or contradicts the file.
    """
    check_declared(config, "input", config.inputs, inputs)
    check_declared(config, "output", config.outputs, outputs)
    declared = {tensor.name for tensor in config.inputs}
    for tensor in inputs:
        if tensor.name not in declared:
            raise LoadError(f"{config.model}: config.pbtxt lacks input {tensor.name!r} of {config.file}")


def check_declared(
    config: Config, kind: str, declared: Sequence[Tensor], present: Sequence[FileTensor]
) -> None:
    """Compare the declared tensors of one kind (input or output) with those present in the file.

    Raises:
        LoadError: names the tensor that is missing or contradicts the file.
    """
    by_name = {tensor.name: tensor for tensor in present}
    for tensor in declared:
        if tensor.name not in by_name:
            raise LoadError(
                f"{config.model}: {config.file} has no {kind} {tensor.name!r}; it has {', '.join(by_name)}"
            )
        found = by_name[tensor.name]
        if found.dtype is not None and found.dtype != tensor.dtype:
            raise LoadError(
                f"{config.model}: config.pbtxt says {kind} {tensor.name!r} is {tensor.dtype},"
                f" {config.file} says {found.dtype}"
            )
        if config.max_batch_size > 1 and found.shape and found.shape[0] != -1:
            raise LoadError(
                f"{config.model}: {kind} {tensor.name!r} of {config.file} has a first axis of"
                f" {found.shape[0]} instead of a free one for batches; set max_batch_size: 1, or 0 if"
                " there is no batch axis"
            )
        full = (-1, *tensor.shape) if config.max_batch_size > 0 else tensor.shape
        if found.shape is not None and not fits(found.shape, full):
            raise LoadError(
                f"{config.model}: config.pbtxt says {kind} {tensor.name!r} is {list(full)},"
                f" {config.file} says {list(found.shape)}"
            )


def fits(shape: Sequence[int], pattern: Sequence[int]) -> bool:
    """Whether two shapes can be the same, a size of -1 on either side being any size."""
    return len(shape) == len(pattern) and all(
        a == b or -1 in (a, b) for a, b in zip(shape, pattern, strict=True)
    )


def unreadable(model: str, file: Path, error: Exception) -> Any:
    """The error of a file that its framework cannot load."""
    return LoadError(f"{model}: cannot load {file}: {one_line(error)}")


def one_line(error: Exception) -> str:
    """Fold a framework's message into one line of bounded length."""
    return " ".join(str(error).split())[:500] or type(error).__name__


@dataclass(frozen=True)
class _Member:
    """One request of a dynamic batch."""

    position: int
    arrays: Arrays
    wanted: frozenset[str]
    rows: int


class Batcher:
    """Answers the dynamic batches of one model instance.

    Owns the buffers that requests are joined in, hence a class. They are kept from batch to batch: fresh ones
    would be zeroed page by page by the kernel every time.
    """

    def __init__(self, config: Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._run_batch = config.integer(RUN_BATCH) if config.max_batch_size > 0 else 0
        self._buffers: Arrays = {}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request: one response each, in order. Never raises."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[_Member]] = {}
        for position, request in enumerate(requests):
            try:
                member = self._read(position, request)
            except Exception as error:  # noqa: BLE001 - an exception here would fail the whole batch
                responses[position] = self._refuse(error)
                continue
            groups.setdefault(self._group(member), []).append(member)
        for members in groups.values():
            self._answer(members, responses)
        return responses

    def _group(self, member: _Member) -> tuple[Any, ...]:
        """Requests with an equal key can be joined."""
        if self._config.max_batch_size == 0:
            return (member.position,)
        return tuple(array.shape[1:] for array in member.arrays.values())

    def _read(self, position: int, request: Any) -> _Member:
        if self._config.execution and DESCRIBE in request.parameters():
            raise ValueError(f"execution: {json.dumps(self._config.execution)}")
        given = {tensor.name(): tensor for tensor in request.inputs()}
        arrays: Arrays = {}
        batched = self._config.max_batch_size > 0
        for spec in self._config.inputs:
            if spec.name not in given:
                raise ValueError(f"input {spec.name!r} is missing")
            array = given[spec.name].as_numpy()
            if array.dtype != spec.dtype:
                raise ValueError(f"input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}")
            if not fits(array.shape[1:] if batched else array.shape, spec.shape):
                raise ValueError(
                    f"input {spec.name!r} is {list(array.shape)}, the model takes {list(spec.shape)}"
                )
            arrays[spec.name] = array
        rows = {len(array) for array in arrays.values()} if batched else {1}
        if len(rows) != 1:
            raise ValueError(f"inputs of one request differ in batch size: {sorted(rows)}")
        return _Member(position, arrays, frozenset(request.requested_output_names()), rows.pop())

    def _answer(self, members: list[_Member], responses: list[Any]) -> None:
        try:
            for member, tensors in zip(members, self._run_together(members), strict=True):
                responses[member.position] = pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:  # noqa: BLE001 - as above
            if len(members) == 1:
                responses[members[0].position] = self._refuse(error)
                return
            # Which of them it was, the framework does not say: each on its own.
            for member in members:
                self._answer([member], responses)

    def _run_together(self, members: list[_Member]) -> list[list[Any]]:
        outputs = [spec for spec in self._config.outputs if any(spec.name in m.wanted for m in members)]
        feed = {spec.name: self._join(spec.name, members) for spec in self._config.inputs}
        total = sum(member.rows for member in members)
        results = self._calculate(feed, outputs, total)
        tensors = []
        start = 0
        for member in members:
            rows = slice(start, start + member.rows) if len(members) > 1 else slice(None)
            start += member.rows
            tensors.append(
                [
                    pb_utils.Tensor(spec.name, result[rows] if result.ndim else result)
                    for spec, result in zip(outputs, results, strict=True)
                    if spec.name in member.wanted
                ]
            )
        return tensors

    def _calculate(self, feed: Arrays, outputs: Sequence[Tensor], rows: int) -> list[Array]:
        size = self._run_batch or rows
        if rows <= size:
            return [self._own(result) for result in self._checked(feed, outputs, rows)]
        wholes: list[Array] = []
        for start in range(0, rows, size):
            part = {name: array[start : start + size] for name, array in feed.items()}
            results = self._checked(part, outputs, min(size, rows - start))
            wholes = wholes or [np.empty((rows, *result.shape[1:]), result.dtype) for result in results]
            # Copied at once: the next part's may take the same memory.
            for whole, result in zip(wholes, results, strict=True):
                whole[start : start + size] = result
        return wholes

    def _checked(self, feed: Arrays, outputs: Sequence[Tensor], rows: int) -> Sequence[Array]:
        results = self._run(feed, [spec.name for spec in outputs])
        for spec, result in zip(outputs, results, strict=True):
            self._check_result(spec, result, rows)
        return results

    def _join(self, name: str, members: list[_Member]) -> Array:
        arrays = [member.arrays[name] for member in members]
        if len(arrays) == 1:
            return arrays[0]
        rows = sum(member.rows for member in members)
        row_shape = arrays[0].shape[1:]
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < rows or buffer.shape[1:] != row_shape:
            size = max(rows, self._config.max_batch_size)
            buffer = self._buffers[name] = np.empty((size, *row_shape), arrays[0].dtype)
        return np.concatenate(arrays, out=buffer[:rows])

    def _own(self, result: Array) -> Array:
        """Copy a result that is a view of a joined input, which the next group of requests will overwrite."""
        is_view = any(np.may_share_memory(result, buffer) for buffer in self._buffers.values())
        return result.copy() if is_view else result

    def _check_result(self, spec: Tensor, result: Array, rows: int) -> None:
        expected = (rows, *spec.shape) if self._config.max_batch_size > 0 else spec.shape
        if result.dtype != spec.dtype or not fits(result.shape, expected):
            raise ValueError(
                f"the model's output {spec.name!r} is {result.dtype} {list(result.shape)},"
                f" config.pbtxt says {spec.dtype} {list(expected)}"
            )

    def _refuse(self, error: Exception) -> Any:
        message = f"{self._config.model}: {one_line(error)}"
        return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))


class Backend:
    """What Triton calls. One instance of a model is one object, in a process of its own."""

    framework: ClassVar[str]
    """Module beside the backend's model.py, with `load(args)` and `complete(config)`."""

    @classmethod
    def auto_complete_config(cls, config: Any) -> Any:
        """Fill the tensors that a configuration omits from the model's file."""
        # Triton asks for every model, in a process for nothing else: no framework is imported if it need not.
        return config if _is_complete(config) else cls._import().complete(config)

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model's file and compare it with the configuration."""
        config, run = self._import().load(args)
        self._batcher = Batcher(config, run)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer one dynamic batch."""
        return self._batcher.execute(requests)

    @classmethod
    def _import(cls) -> Any:
        try:
            return importlib.import_module(cls.framework)
        except ModuleNotFoundError as error:
            raise LoadError(
                f"this server's Python {sys.version.split()[0]} has no package {error.name}"
            ) from error


def _is_complete(config: Any) -> bool:
    """Whether the configuration declares its tensors, so that nothing has to be read from the file."""
    declared = config.as_dict()
    return bool(declared["input"] and declared["output"])


def model_file(config: Any, default_filename: str) -> Path:
    """Path of the model's file during `auto_complete_config`, which is told less than `initialize`."""
    filename = config.as_dict().get("default_model_filename") or default_filename
    return Path(pb_utils.get_model_dir()) / filename


def complete(
    config: Any, inputs: Sequence[FileTensor], outputs: Sequence[FileTensor], *, fixed_batch: int = -1
) -> Any:
    """Fill the tensors that a configuration omits from those of the model's file.

    What it declares is left as it is. Where it declares nothing at all and every tensor of the file has a
    free first axis, batching is switched on with Triton's default of 4, as the native backends do.

    Args:
        config: The `ModelConfig` that Triton gives `auto_complete_config`; changed and returned.
        inputs: Of the model's file.
        outputs: Of the model's file.
        fixed_batch: A size of the first axis that counts as a batch axis beside -1.

    Raises:
        LoadError: the configuration wants batches of a tensor that has no axis for them.
    """
    declared = config.as_dict()
    can_batch = all(tensor.shape and tensor.shape[0] in (-1, fixed_batch) for tensor in (*inputs, *outputs))
    if not (declared["input"] or declared["output"] or declared["max_batch_size"]) and can_batch:
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
    batched = declared["max_batch_size"] > 0
    if batched and not can_batch:
        raise LoadError(f"{declared['name']}: the file's tensors have no batch axis; set max_batch_size: 0")
    for kind, tensors in (("input", inputs), ("output", outputs)):
        if not declared[kind]:
            # Not by add_input and add_output: those refuse `reshape`.
            declared[kind].extend(_declaration(tensor, batched) for tensor in tensors)
    return config


def _declaration(tensor: FileTensor, batched: bool) -> dict[str, Any]:
    names = {np.dtype(value): key for key, value in pb_utils.TRITON_STRING_TO_NUMPY.items()}
    shape = list(tensor.shape or ())[1 if batched else 0 :]
    declaration = {"name": tensor.name, "data_type": names[np.dtype(tensor.dtype)], "dims": shape}
    if not shape:
        # Triton has no empty dims: one number on the wire, which the reshape folds away for the backend.
        declaration |= {"dims": [1], "reshape": {"shape": []}}
    return declaration

"""ONNX's door: files read and run with ONNX Runtime, and TensorFlow graphs exported with tf2onnx."""

import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from converters.formats.graph import Array, Graph, Images, describe_images, dtype_of, layout_of
from converters.formats.native_output import held_back
from converters.formats.reasons import reason_of
from harness.errors import ConversionError
from harness.models.spec import Layout, Quantization, TensorSpec

if TYPE_CHECKING:
    from converters.formats.tensorflow import FrozenGraph

OPSET = 13
"""What Triton's ONNX Runtime of any supported release runs, and the first with per-axis quantisation."""

_FATAL_ONLY = 4
_LARGEST_BYTES = 2**31 - 1
"""Of a protobuf message."""
_READS_QUANTIZED = ("DequantizeLinear", "QLinearConv")
"""Operations whose inputs begin with a quantised tensor, its scale and its zero point."""
_REARRANGES = ("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice")
"""Operations whose output has the very numbers of their input."""
_TYPES = {"float": "float32", "double": "float64"}
"""ONNX's names that are not numpy's."""


@contextmanager
def open_onnx(path: Path, images: Images, threads: int = 0) -> Iterator[Graph]:
    """Open an ONNX file; tensors have the graph's names.

    Args:
        path: the file.
        images: what to take where the file leaves it open.
        threads: 0 for all cores.

    Raises:
        ConversionError: not an ONNX file, or not one image in.
    """
    _check_beside(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # one class per error code, without a common parent
        raise ConversionError(f"{path}: ONNX Runtime cannot load it: {reason_of(error)}") from error
    if len(session.get_inputs()) != 1:
        raise ConversionError(f"{path}: one input wanted; it has {len(session.get_inputs())}")
    source, names = session.get_inputs()[0], [output.name for output in session.get_outputs()]
    if len(source.shape) != 4:
        raise ConversionError(f"{path}: input {source.name} is {source.shape}; a batch of images is wanted")
    word = source.type.removeprefix("tensor(").removesuffix(")")
    dtype = dtype_of(source.name, _TYPES.get(word, word), path)

    def run(batch: Array) -> list[Array]:
        return [np.asarray(value) for value in session.run(names, {source.name: batch})]

    graph = describe_images(path, source.name, dtype, source.shape, images, names, run)
    declared = [output.shape[1:] for output in session.get_outputs()]
    open_axes = (_open_axes(*pair) for pair in zip(declared, graph.outputs, strict=True))
    yield replace(
        graph,
        open_axes=tuple(open_axes),
        quantization=_input_quantization(path, source.name) if dtype.is_whole else None,
    )


def _input_quantization(path: Path, name: str) -> Quantization | None:
    """How an input stores real numbers, by the operations that read it; None where another takes it as it is.

    Raises:
        ConversionError: its scale differs by channel, or is calculated: no pixel could be stored by it.
    """
    graph = onnx.load(path, load_external_data=False).graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = node.attribute[0].t
    found, names = set(), {name}
    # A node comes after those whose output it reads.
    for node in graph.node:
        if not names & set(node.input):
            continue
        if node.op_type in _REARRANGES:
            names.update(node.output)
        elif node.op_type in _READS_QUANTIZED:
            # An operand that is left out may have an empty name.
            found.add(_quantization([known.get(each) for each in node.input[1:3] if each], path))
        else:
            return None
    if None in found or len(found) > 1:
        raise ConversionError(
            f"{path}: input {name} is stored with no single scale and zero point, so images cannot be given "
            "to it: export it with one for all channels, or with a float input"
        )
    return found.pop() if found else None


def _quantization(tensors: list[onnx.TensorProto | None], path: Path) -> Quantization | None:
    """Of a scale and, unless it is 0, a zero point; of one number each."""
    if None in tensors:
        return None
    values = [onnx.numpy_helper.to_array(tensor, os.fspath(path.parent)) for tensor in tensors]
    if any(value.size != 1 for value in values):
        return None
    scale, zero_point = (*values, np.zeros(1, np.int32))[:2]
    return Quantization(float(scale.item()), int(zero_point.item()))


def _open_axes(declared: list[int | str | None], found: TensorSpec) -> tuple[int, ...]:
    """Axes whose size the file leaves open, or declares otherwise than it turned out."""
    sizes = zip(declared, found.shape, strict=False)  # a file need not declare any
    return tuple(axis for axis, (said, size) in enumerate(sizes) if said != size)


@dataclass(frozen=True)
class _Place:
    """Where the numbers of a tensor lie beside an ONNX file."""

    location: str
    offset: int
    size: int | None
    """None for all from there on."""

    @property
    def end(self) -> int:
        """How many bytes the file has at least."""
        return self.offset + (self.size or 0)


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights; none of a file that is damaged.

    Raises:
        ConversionError: it does not say which bytes of them.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return []
    return [
        path.parent / name for name in sorted({_place(tensor, path).location for tensor in _beside(model)})
    ]


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a file with the weights that lie beside it; those may be links, as in Hugging Face's cache.

    Raises:
        ConversionError: not an ONNX file, or weights that are not there.
    """
    _check_beside(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ConversionError(f"{path}: not an ONNX file: {reason_of(error)}") from error
    for tensor in _beside(model):
        place = _place(tensor, path)
        with (path.parent / place.location).open("rb") as stream:
            stream.seek(place.offset)
            tensor.raw_data = stream.read(place.size)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return model


def _check_beside(path: Path) -> None:
    """See that all weights that a file has beside it are there.

    Raises:
        ConversionError: one is not, or not in the file's folder.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return  # ONNX Runtime says what is wrong
    wanted: dict[str, int] = {}
    for place in (_place(tensor, path) for tensor in _beside(model)):
        wanted[place.location] = max(place.end, wanted.get(place.location, 0))
    for location, size in wanted.items():
        name = PurePosixPath(location)
        if name.is_absolute() or ".." in name.parts:
            raise ConversionError(
                f"{path}: its weights are in {location}, outside its folder: save it with them beside it"
            )
        file = path.parent / name
        if not file.is_file():
            raise ConversionError(f"{path}: its weights, {location}, are not beside it")
        if (there := file.stat().st_size) < size:
            raise ConversionError(
                f"{path}: its weights, {location}, are cut short: {size} bytes wanted, {there} there; copy "
                "them again"
            )


def _place(tensor: onnx.TensorProto, path: Path) -> _Place:
    said = {entry.key: entry.value for entry in tensor.external_data}
    numbers = [said.get("offset", "0"), said.get("length", "0")]
    if not all(number.isdecimal() for number in numbers):
        raise ConversionError(f"{path}: is damaged: its weights {tensor.name} have no place in a file")
    offset, size = map(int, numbers)
    return _Place(said.get("location", ""), offset, size if "length" in said else None)


def _beside(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Tensors whose numbers are in other files."""
    tensors = itertools.chain.from_iterable(map(_tensors, (model.graph, *model.functions)))
    return [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor of a graph: its weights, constants in operations, and those of graphs in these."""
    # A function has no weights, only constants.
    yield from getattr(graph, "initializer", ())
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g,) if attribute.HasField("g") else attribute.graphs:
            yield from _tensors(inner)


def copy_onnx(source: Path, target: Path) -> None:
    """Copy a file; weights that lie beside it become a part of the copy.

    Raises:
        ConversionError: they are too large for one file.
    """
    beside = external_files(source)
    if not beside:
        shutil.copyfile(source, target)
        return
    size = sum(file.stat().st_size for file in beside)
    if size > _LARGEST_BYTES:
        raise ConversionError(f"{source}: weights of {size / 1e9:.1f} GB; an ONNX file holds up to 2 GB")
    onnx.save(load_onnx(source), target)


def export_onnx(frozen: "FrozenGraph", source: Path, target: Path, layout: Layout) -> None:
    """Write a TensorFlow graph as ONNX with names ending in `:0`.

    Args:
        frozen: the graph.
        source: file or SavedModel that it was read from, for messages.
        target: file to write.
        layout: axis order of the input; a graph that is NCHW itself stays so.

    Raises:
        ConversionError: tf2onnx cannot express the graph.
    """
    with held_back():
        import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    inputs = [f"{frozen.input_name}:0"]
    is_changed = layout == Layout.NCHW and layout_of(frozen.input_shape[1:], source) == Layout.NHWC
    try:
        with held_back():
            model, weights = tf2onnx.convert.from_graph_def(
                frozen.graph_def,
                input_names=inputs,
                output_names=[f"{name}:0" for name in frozen.output_names],
                inputs_as_nchw=inputs if is_changed else None,
                opset=OPSET,
                # Keeps the weights out of what is copied for each optimisation: 3 GB instead of 7.
                large_model=True,
            )
    except (ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise ConversionError(f"{source}: tf2onnx cannot express this graph: {reason_of(error)}") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            tensor.raw_data = weights.name_to_tensor_data[tensor.external_data[0].value]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    target.write_bytes(model.SerializeToString())

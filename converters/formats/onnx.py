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
_READS_QUANTIZED = ("DequantizeLinear", "QLinear")
"""How operations begin that have, behind each quantised tensor, its scale and its zero point."""
_REARRANGES = (
    *("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "DepthToSpace", "SpaceToDepth"),
    *("Slice", "Split", "Gather", "MaxPool", "Concat", "Pad", "Resize"),
)
"""Operations whose output stores numbers as their first input does: the very ones, some of them, or more of
their kind; those of `Concat` as any of its inputs."""
_NUMBERS = {"value_float": "f", "value_floats": "f", "value_int": "i8", "value_ints": "i8"}
"""Attributes in which a Constant holds numbers that are no tensor, and their types."""
_TELLS_SIZE = ("Shape", "Size")
"""Operations that read no number of their input."""
_REAL = (
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16),
    *(onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16),
)
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
    """How an input stores real numbers, by the operations that read it; None where all take it as it is.

    Raises:
        ConversionError: its scale differs by channel, or is calculated: no pixel could be stored by it; or
            something reads it beside what dequantises it.
    """
    graph = load_onnx(path).graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (tensor := _constant(node.attribute[0])):
            known[node.output[0]] = tensor
    found, others = set[Quantization | None](), list[str]()
    stored, changed, is_dequantized = {name}, set[str](), False
    # A node comes after those whose output it reads.
    for node in graph.node:
        if node.op_type in _TELLS_SIZE:
            continue
        # An operand that is left out may have an empty name, as a result may.
        places = [place for place, each in enumerate(node.input) if each and each in stored]
        is_touched = bool(places or (changed - {""}) & set(node.input))
        if node.op_type.startswith(_READS_QUANTIZED):
            is_dequantized |= is_touched
            for place in places:
                operands = [each for each in node.input[place + 1 : place + 3] if each]
                found.add(_quantization([known.get(each) for each in operands]))
        elif node.op_type in _REARRANGES and (0 in places or (places and node.op_type == "Concat")):
            stored.update(node.output)
        elif is_touched:
            others += [node.op_type] if places else []
            changed.update(() if _makes_real(node) else node.output)
    if others and is_dequantized:
        raise ConversionError(
            f"{path}: input {name} is read by {', '.join(dict.fromkeys(others))} beside or before what "
            "dequantises it, so nobody can tell which numbers it takes: export it with nothing else between "
            "the input and its DequantizeLinear, or with a float input"
        )
    if None in found or len(found) > 1:
        raise ConversionError(
            f"{path}: input {name} is stored with no single scale and zero point, so images cannot be given "
            "to it: export it with one for all channels, or with a float input"
        )
    return found.pop() if found else None


def _constant(value: onnx.AttributeProto) -> onnx.TensorProto | None:
    """What a Constant holds; None of text and of sparse tensors, which are no scale."""
    if value.name == "value":
        return value.t
    if value.name not in _NUMBERS:
        return None
    numbers = np.array(onnx.helper.get_attribute_value(value), _NUMBERS[value.name])
    return onnx.numpy_helper.from_array(numbers)


def _makes_real(node: onnx.NodeProto) -> bool:
    """Whether a node makes real numbers, which may be quantised again in a way of their own."""
    return node.op_type == "Cast" and any(each.name == "to" and each.i in _REAL for each in node.attribute)


def _quantization(tensors: list[onnx.TensorProto | None]) -> Quantization | None:
    """Of a scale and, unless it is 0, a zero point; of one number each."""
    if None in tensors:
        return None
    values = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
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

"""TensorFlow's door: frozen graphs and SavedModels, read, run, built and exported. Slow to import."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats.graph import Array, Graph, Images, describe_images, dtype_of
from converters.formats.native_output import held_back
from converters.formats.reasons import reason_of
from harness.errors import ConversionError
from harness.models.spec import Variant

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Else all sessions of a process share the pool of threads that the first one made (local_device.cc).
os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] = "1"
with held_back():
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

__all__ = [
    "FrozenGraph",
    "export_graph_def",
    "export_saved_model",
    "export_tflite",
    "node_name",
    "open_graph_def",
    "open_saved_model",
    "read_frozen",
    "serialise",
    "tf",
    "to_tflite",
]

tf.get_logger().setLevel("ERROR")

_SIGNATURE = "serving_default"
_TAGS = ["serve"]
_VARIABLE_OPS = ("Variable", "VariableV2", "VarHandleOp")


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables, and which of its nodes are the model's input and outputs."""

    graph_def: Any
    input_name: str
    output_names: tuple[str, ...]
    is_extended: bool = False
    """Whether it has nodes that the file has not."""

    @property
    def input_shape(self) -> list[int]:
        """With the batch axis; -1 where it is open."""
        (node,) = (node for node in self.graph_def.node if node.name == self.input_name)
        return [dimension.size for dimension in node.attr["shape"].shape.dim]


def read_frozen(path: Path, named: Variant | None) -> FrozenGraph:
    """Read a frozen graph, or freeze a SavedModel's serving signature.

    Args:
        path: `.pb` file or SavedModel folder.
        named: names the tensors to use if the graph has them; else the graph's own ends are taken.

    Raises:
        ConversionError: not such a file, or not one image in.
    """
    if path.is_dir():
        return _freeze(path)
    graph_def = tf.compat.v1.GraphDef()
    content = path.read_bytes()
    try:
        graph_def.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError; TensorFlow's own copy of protobuf may differ
        reason = f"not a TensorFlow graph ({reason_of(error)})"
        if _is_saved_model(content):
            reason = "the file of a SavedModel, not a frozen graph: give its folder"
        raise ConversionError(f"{path}: {reason}") from error
    if variables := [node.name for node in graph_def.node if node.op in _VARIABLE_OPS]:
        raise ConversionError(f"{path}: not frozen: {variables[0]} is a variable; freeze the graph first")
    return _ends(graph_def, path, named)


def _is_saved_model(content: bytes) -> bool:
    """Whether a file is what a SavedModel's folder has as saved_model.pb."""
    try:
        return bool(saved_model_pb2.SavedModel.FromString(content).meta_graphs)
    except Exception:  # noqa: BLE001 - as above
        return False


def _ends(graph_def: Any, path: Path, named: Variant | None) -> FrozenGraph:
    """Find input and outputs: the names asked for, or the one placeholder and whatever nothing consumes."""
    names = {node.name for node in graph_def.node}
    if named:
        outputs = tuple(output.name for output in named.outputs)
        if names.issuperset((named.input.name, *outputs)):
            return FrozenGraph(graph_def, named.input.name, outputs)
    consumed = {node_name(reference) for node in graph_def.node for reference in node.input}
    placeholders = [node.name for node in graph_def.node if node.op == "Placeholder"]
    ends = [
        node.name
        for node in graph_def.node
        if node.name not in consumed and node.op not in ("Const", "NoOp", "Placeholder")
    ]
    outputs = _output_nodes(graph_def, path, ends)
    if len(placeholders) != 1 or not outputs:
        raise ConversionError(
            f"{path}: one input (placeholder) and at least one output wanted; "
            f"it has {len(placeholders)} and {len(outputs)}"
        )
    return FrozenGraph(graph_def, placeholders[0], outputs, is_extended=not names.issuperset(outputs))


def _output_nodes(graph_def: Any, path: Path, ends: Sequence[str]) -> tuple[str, ...]:
    """Give each output of an operation that has several a node of its own: servers ask by nodes' names."""
    with tf.Graph().as_default() as graph:
        _import(graph_def, path)
        operations = [graph.get_operation_by_name(name) for name in ends]
    result, taken = [], {node.name for node in graph_def.node}
    for operation in operations:
        for index, tensor in enumerate(operation.outputs):
            name = f"{operation.name}_{index}"
            while name in taken:
                name += "_"
            is_single = len(operation.outputs) == 1
            result.append(operation.name if is_single else _named_output(graph_def, name, tensor))
    return tuple(result)


def _import(graph_def: Any, path: Path) -> None:
    """Import into the default graph."""
    try:
        tf.import_graph_def(graph_def, name="")
    except ValueError as error:
        raise ConversionError(f"{path}: TensorFlow cannot load the graph ({reason_of(error)})") from error


def _freeze(path: Path) -> FrozenGraph:
    try:
        with held_back(), _without_globs(path) as folder:
            # The signature holds no reference to the model's variables: this one keeps them alive.
            model = tf.saved_model.load(folder)
        signature = model.signatures[_SIGNATURE]
    except (OSError, KeyError, ValueError) as error:
        raise ConversionError(
            f"{path}: no SavedModel with a signature {_SIGNATURE!r} ({reason_of(error)})"
        ) from error
    frozen = convert_variables_to_constants_v2(signature)
    inputs = [tensor.name for tensor in frozen.inputs if tensor.dtype != tf.resource]
    if len(inputs) != 1:
        raise ConversionError(f"{path}: one input wanted; the signature has {len(inputs)}")
    graph_def = frozen.graph.as_graph_def()
    # In the order in which TensorFlow flattens a dictionary; freezing leaves names as Identity_1.
    names = sorted(signature.structured_outputs)
    outputs = tuple(
        _named_output(graph_def, name, tensor) for name, tensor in zip(names, frozen.outputs, strict=True)
    )
    return FrozenGraph(graph_def, node_name(inputs[0]), outputs)


def _named_output(graph_def: Any, name: str, tensor: Any) -> str:
    """Give an output the name that the signature has for it, unless another node is called so."""
    if name in {node.name for node in graph_def.node}:
        return node_name(tensor.name)
    node = graph_def.node.add(op="Identity", name=name, input=[tensor.name])
    node.attr["T"].type = tensor.dtype.as_datatype_enum
    return name


@contextmanager
def _without_globs(folder: Path) -> Iterator[str]:
    """A path of the folder that TensorFlow, which finds the variables' files by pattern, takes literally."""
    if glob.escape(str(folder)) == str(folder):
        yield str(folder)
        return
    with tempfile.TemporaryDirectory() as plain:
        link = Path(plain) / "saved_model"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        try:
            yield str(link)
        except (OSError, RuntimeError, ValueError) as error:
            # Of the user's folder, not of the link to it.
            raise OSError(str(error).replace(str(link), str(folder))) from error


@contextmanager
def open_graph_def(path: Path, named: Variant | None, images: Images, threads: int = 0) -> Iterator[Graph]:
    """Open a frozen graph; tensors have node names, as Triton's backend wants them.

    Args:
        path: the file.
        named: see `read_frozen`.
        images: what to take where the graph leaves it open.
        threads: 0 for all cores.

    Raises:
        ConversionError: not such a file, or not one image in.
    """
    frozen = read_frozen(path, named)
    with tf.Graph().as_default() as graph:
        _import(frozen.graph_def, path)
        names = (frozen.input_name, *frozen.output_names)
        source, *targets = [graph.get_tensor_by_name(f"{name}:0") for name in names]
        with _session(threads) as session:
            outputs = dict(zip(names[1:], targets, strict=True))
            yield _describe(path, session, frozen.input_name, source, outputs, images)


@contextmanager
def open_saved_model(path: Path, images: Images, threads: int = 0) -> Iterator[Graph]:
    """Open a SavedModel; tensors have the serving signature's names, as Triton's backend wants them.

    Args:
        path: the folder.
        images: what to take where the signature leaves it open.
        threads: 0 for all cores.

    Raises:
        ConversionError: not such a folder, or not one image in.
    """
    with tf.Graph().as_default() as graph, _session(threads) as session:
        try:
            with held_back(), _without_globs(path) as folder:
                model = tf.compat.v1.saved_model.load(session, _TAGS, folder)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConversionError(
                f"{path}: not a SavedModel that can be served ({reason_of(error)})"
            ) from error
        # Asked for one that is not there, the map makes it.
        if _SIGNATURE not in model.signature_def:
            others = ", ".join(name for name in sorted(model.signature_def) if not name.startswith("__"))
            raise ConversionError(
                f"{path}: has no signature {_SIGNATURE}, which servers ask for, but {others or 'none'}: save "
                f"it with signatures={{'{_SIGNATURE}': …}}"
            )
        signature = model.signature_def[_SIGNATURE]
        if len(signature.inputs) != 1:
            raise ConversionError(f"{path}: one input wanted; {_SIGNATURE} has {len(signature.inputs)}")
        ((input_name, source),) = signature.inputs.items()
        targets = {
            name: graph.get_tensor_by_name(info.name) for name, info in sorted(signature.outputs.items())
        }
        yield _describe(path, session, input_name, graph.get_tensor_by_name(source.name), targets, images)


def _session(threads: int) -> Any:
    """A session of the default graph; so many threads, 0 for all cores."""
    options = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads,
        use_per_session_threads=True,
    )
    return tf.compat.v1.Session(config=options)


def _describe(
    path: Path,
    session: Any,
    input_name: str,
    source: Any,
    targets: dict[str, Any],
    images: Images,
) -> Graph:
    if source.shape.rank != 4:
        raise ConversionError(
            f"{path}: input {input_name} is {source.shape}; a batch of images of one size is wanted"
        )
    tensors = list(targets.values())

    def run(batch: Array) -> list[Array]:
        return [np.asarray(value) for value in session.run(tensors, {source: batch})]

    dtype = dtype_of(input_name, source.dtype.as_numpy_dtype, path)
    declared = ["?" if side is None else side for side in source.shape.as_list()]
    return describe_images(path, input_name, dtype, declared, images, list(targets), run)


def export_graph_def(source: Path, target: Path, named: Variant | None) -> None:
    """Write a frozen graph; one is taken as it is, unless an operation of several outputs ends it."""
    frozen = read_frozen(source, named)
    if source.is_dir() or frozen.is_extended:
        target.write_bytes(serialise(frozen.graph_def))
    else:
        shutil.copyfile(source, target)


def export_saved_model(source: Path, target: Path, named: Variant | None) -> None:
    """Write a SavedModel whose signature has the graph's node names; a SavedModel is taken as it is."""
    if source.is_dir():
        shutil.copytree(source, target)
        return
    frozen = read_frozen(source, named)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph_def, name="")
        tensors = {name: graph.get_tensor_by_name(f"{name}:0") for name in frozen.output_names}
        inputs = {frozen.input_name: graph.get_tensor_by_name(f"{frozen.input_name}:0")}
        build_info = tf.compat.v1.saved_model.build_tensor_info
        signature = tf.compat.v1.saved_model.build_signature_def(
            {name: build_info(tensor) for name, tensor in inputs.items()},
            {name: build_info(tensor) for name, tensor in tensors.items()},
            tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME,
        )
        with tf.compat.v1.Session() as session, held_back():
            builder = tf.compat.v1.saved_model.Builder(str(target))
            builder.add_meta_graph_and_variables(session, _TAGS, {_SIGNATURE: signature})
            builder.save()


def export_tflite(source: Path, target: Path, named: Variant | None) -> None:
    """Convert to float TFLite with the graph's node names and a free batch axis, if the graph's is free."""
    target.write_bytes(to_tflite(read_frozen(source, named), source))


def to_tflite(frozen: FrozenGraph, source: Path) -> bytes:
    """Convert a graph as it is.

    Raises:
        ConversionError: TFLite cannot express it; names `source`.
    """
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph_def, name="")
        inputs = [graph.get_tensor_by_name(f"{frozen.input_name}:0")]
        outputs = [graph.get_tensor_by_name(f"{name}:0") for name in frozen.output_names]
        converter = tf.compat.v1.lite.TFLiteConverter(graph.as_graph_def(), inputs, outputs)
        try:
            with held_back():
                return bytes(converter.convert())
        except Exception as error:  # the converter's own, from a native module
            raise ConversionError(
                f"{source}: TFLite cannot express this graph: {reason_of(error)}"
            ) from error


def serialise(graph_def: Any) -> bytes:
    """The same bytes for the same graph."""
    return bytes(graph_def.SerializeToString(deterministic=True))


def node_name(reference: str) -> str:
    """`^a/b:1` -> `a/b`."""
    return reference.removeprefix("^").split(":")[0]

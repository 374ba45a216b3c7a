"""Triton's `tensorflow` backend, which NVIDIA ships no more: frozen graphs and saved models.

`platform` of config.pbtxt tells them apart: `tensorflow_graphdef` names tensors as the graph's nodes do (`:0`
may be added), `tensorflow_savedmodel` as the signature does. Parameters as the native backend's:
TF_NUM_INTRA_THREADS, TF_NUM_INTER_THREADS, TF_SIGNATURE_DEF, TF_GRAPH_TAG.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import batching
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

_GRAPHDEF = "tensorflow_graphdef"
_SAVEDMODEL = "tensorflow_savedmodel"
_FILENAMES = {_GRAPHDEF: "model.graphdef", _SAVEDMODEL: "model.savedmodel"}
_SIGNATURE = "serving_default"
_TAG = "serve"


@dataclass(frozen=True)
class _Loaded:
    """A session with the file's graph in it, and the graph's tensors by the configuration's names."""

    session: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def complete(config: Any) -> Any:
    """Fill the tensors that a configuration omits from a saved model's signature; a frozen graph has none."""
    declared = config.as_dict()
    model, platform = declared["name"], declared["platform"]
    if platform != _SAVEDMODEL:
        raise batching.LoadError(f"{model}: config.pbtxt must declare input and output for {platform}")
    parameters = {key: value["string_value"] for key, value in declared["parameters"].items()}
    file = batching.model_file(config, _FILENAMES[platform])
    loaded = _load_savedmodel(model, file, parameters, tf.compat.v1.ConfigProto())
    return batching.complete(config, _tensors(loaded.inputs), _tensors(loaded.outputs))


def load(args: Mapping[str, str]) -> tuple[batching.Config, batching.Run]:
    """Open the file and compare it with the configuration."""
    platform = json.loads(args["model_config"])["platform"]
    if platform not in _FILENAMES:
        choices = " or ".join(_FILENAMES)
        raise batching.LoadError(f"{args['model_name']}: platform must be {choices}, not {platform!r}")
    config = batching.read_config(args, _FILENAMES[platform])
    options = _session_options(config)
    if platform == _SAVEDMODEL:
        loaded = _load_savedmodel(config.model, config.file, config.parameters, options)
        batching.check_tensors(config, _tensors(loaded.inputs), _tensors(loaded.outputs))
    else:
        loaded = _load_graphdef(config, options)
    return config, _runner(config, loaded)


def _runner(config: batching.Config, loaded: _Loaded) -> batching.Run:
    """Run the session; what is fetched and fed is resolved once per combination of wanted outputs."""
    names = [tensor.name for tensor in config.inputs]

    @functools.cache
    def callable_for(wanted: tuple[str, ...]) -> Callable[..., list[batching.Array]]:
        return loaded.session.make_callable(
            [loaded.outputs[name] for name in wanted], [loaded.inputs[name] for name in names]
        )

    def run(feed: batching.Arrays, wanted: Sequence[str]) -> list[batching.Array]:
        return [np.asarray(result) for result in callable_for(tuple(wanted))(*[feed[name] for name in names])]

    return run


def _session_options(config: batching.Config) -> Any:
    options = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=config.integer("TF_NUM_INTRA_THREADS"),
        inter_op_parallelism_threads=config.integer("TF_NUM_INTER_THREADS"),
        allow_soft_placement=True,
    )
    if config.gpu is None:
        options.device_count["GPU"] = 0
        return options
    if not tf.config.list_physical_devices("GPU"):
        raise batching.LoadError(
            f"{config.model}: KIND_GPU, but this tensorflow sees no GPU; use KIND_CPU (--device cpu)"
        )
    options.gpu_options.visible_device_list = str(config.gpu)
    options.gpu_options.allow_growth = True
    return options


def _load_graphdef(config: batching.Config, options: Any) -> _Loaded:
    definition = tf.compat.v1.GraphDef()
    graph = tf.Graph()
    try:
        definition.ParseFromString(config.file.read_bytes())
        with graph.as_default():
            tf.import_graph_def(definition, name="")
    except Exception as error:
        raise batching.unreadable(config.model, config.file, error) from error
    inputs, outputs = _find(graph, config.inputs), _find(graph, config.outputs)
    # Beside those declared, the likely ones, so that a misspelt name is answered with what there is.
    fed = {op.name: op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"}
    ends = {op.name: op.outputs[0] for op in graph.get_operations() if op.outputs and not _readers(op)}
    batching.check_declared(config, "input", config.inputs, _tensors(fed | inputs))
    batching.check_declared(config, "output", config.outputs, _tensors(ends | outputs))
    return _Loaded(tf.compat.v1.Session(graph=graph, config=options), inputs, outputs)


def _find(graph: Any, declared: Sequence[batching.Tensor]) -> dict[str, Any]:
    found = {}
    for tensor in declared:
        try:
            name = tensor.name if ":" in tensor.name else f"{tensor.name}:0"
            found[tensor.name] = graph.get_tensor_by_name(name)
        except (KeyError, ValueError):
            continue  # reported by check_declared
    return found


def _readers(operation: Any) -> list[Any]:
    return [reader for output in operation.outputs for reader in output.consumers()]


def _load_savedmodel(model: str, folder: Path, parameters: Mapping[str, str], options: Any) -> _Loaded:
    tag = parameters.get("TF_GRAPH_TAG", _TAG)
    key = parameters.get("TF_SIGNATURE_DEF", _SIGNATURE)
    graph = tf.Graph()
    with graph.as_default():
        session = tf.compat.v1.Session(graph=graph, config=options)
        try:
            signatures = tf.compat.v1.saved_model.load(session, [tag], str(folder)).signature_def
        except Exception as error:
            raise batching.unreadable(model, folder, error) from error
    if key not in signatures:
        raise batching.LoadError(
            f"{model}: {folder} has no signature {key!r} (TF_SIGNATURE_DEF); it has {', '.join(signatures)}"
        )
    inputs, outputs = (
        {name: graph.get_tensor_by_name(info.name) for name, info in tensors.items()}
        for tensors in (signatures[key].inputs, signatures[key].outputs)
    )
    return _Loaded(session, inputs, outputs)


def _tensors(tensors: Mapping[str, Any]) -> list[batching.FileTensor]:
    return [
        batching.FileTensor(
            name,
            np.dtype(tensor.dtype.as_numpy_dtype),
            None
            if tensor.shape.rank is None
            else tuple(-1 if n is None else n for n in tensor.shape.as_list()),
        )
        for name, tensor in tensors.items()
    ]

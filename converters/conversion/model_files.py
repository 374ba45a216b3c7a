"""Opens and exports model files of every kind; each framework is imported when it is first needed."""

import hashlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from converters.conversion import own_files
from converters.conversion.own_files import NOTHING_SAID, Said
from converters.formats.graph import Graph
from harness.errors import ConfigError, ConversionError
from harness.models import manifest
from harness.models.manifest import USER_FILE
from harness.models.platforms import BY_ENDING, Platform
from harness.models.spec import Layout, ModelSpec, Nms, Variant


def open_file(
    path: Path, spec: ModelSpec, torch_shape: tuple[int, ...] = ()
) -> AbstractContextManager[Graph]:
    """Open a model file with the framework that its ending stands for.

    Args:
        path: `.pb`, `.graphdef`, SavedModel folder, `.onnx`, `.tflite`, `.pt` or `.pth`.
        spec: the model whose task it shares; says what the file leaves open.
        torch_shape: (3, height, width) of a PyTorch file's input, which is in no such file; the model's own
            if empty.

    Raises:
        ConversionError: the file isn't of its kind.
    """
    if not path.exists():
        raise ConversionError(f"{path} is missing; convert the model again")
    if path.is_dir():
        from converters.formats.tensorflow import open_saved_model

        return open_saved_model(path, _named(spec))
    platform = BY_ENDING.get(path.suffix, Platform.TENSORFLOW)
    if platform == Platform.PYTORCH:
        return _open_torch(path, spec, torch_shape)
    return _OPENERS[platform](path, spec)


def export(platform: Platform, source: Path, target: Path, spec: ModelSpec, nms: Nms = Nms.CORRECTED) -> None:
    """Write `source` as a file of `platform`, or copy it where it is one.

    Raises:
        ConversionError: it cannot be expressed there.
    """
    named = _named(spec)
    if source.suffix == Path(platform.facts.model_filename).suffix and source.is_file():
        _copy(source, target)
    elif source.suffix == ".onnx":
        _export_from_onnx(platform, source, target, spec, nms)
    elif platform == Platform.PYTORCH:
        _export_torchscript(source, target, spec)
    elif (platform.facts.twin or platform) == Platform.ONNXRUNTIME:
        _export_onnx(source, target, named, spec.variants[platform].preprocess.layout)
    elif platform == Platform.TFLITE and named and named.detection:
        from converters.networks.ssd_mobilenet.tensorflow import export_tflite

        export_tflite(source, target, named, spec.variants[platform])
    else:
        from converters.formats import tensorflow

        write = {
            Platform.TENSORFLOW: tensorflow.export_graph_def,
            Platform.TENSORFLOW_SAVEDMODEL: tensorflow.export_saved_model,
            Platform.TFLITE: tensorflow.export_tflite,
        }[platform]
        write(source, target, named)


def digest(path: Path) -> str:
    """SHA-256 of a model file or folder, with the files beside it that hold its weights."""
    if path.suffix == ".onnx":
        from converters.formats.onnx import external_files

        if beside := external_files(path):
            parts = [manifest.digest(file) for file in (path, *beside) if file.is_file()]
            return hashlib.sha256("".join(parts).encode()).hexdigest()
    return manifest.digest(path)


def _copy(source: Path, target: Path) -> None:
    if source.suffix == ".onnx":
        from converters.formats.onnx import copy_onnx

        copy_onnx(source, target)
    else:
        shutil.copyfile(source, target)


def variant_of_source(graph: Graph, spec: ModelSpec, kind: str, said: Said = NOTHING_SAID) -> Variant:
    """How the answers of a source file are read: as declared for its kind of file, or as a user's file says.

    Args:
        graph: the file, opened.
        spec: the model.
        kind: of its weights; `file` for a user's own.
        said: what the user says of that.
    """
    declared = spec.variants[BY_ENDING.get(graph.path.suffix, Platform.TENSORFLOW)]
    return own_files.variant_of(graph, declared, said) if kind == USER_FILE else declared


def _export_from_onnx(platform: Platform, source: Path, target: Path, spec: ModelSpec, nms: Nms) -> None:
    """Build SSD-ResNet34 anew, around the weights in an ONNX file."""
    variant = spec.variants.get(platform)
    if variant is None or variant.source != "onnx":
        raise ConfigError(f"{source}: {spec.name} on {platform} is not made from ONNX files")
    from converters.networks.ssd_resnet34.weights import read_weights

    weights = read_weights(source)
    if platform == Platform.PYTORCH:
        from converters.networks.ssd_resnet34.torch import export_ssd_resnet34

        export_ssd_resnet34(weights, target, nms)
    else:
        from converters.networks.ssd_resnet34.tensorflow import build_ssd_resnet34

        build_ssd_resnet34(weights, target)


def _export_onnx(source: Path, target: Path, named: Variant | None, layout: Layout) -> None:
    from converters.formats.onnx import export_onnx
    from converters.formats.tensorflow import read_frozen

    frozen = read_frozen(source, named)
    if named and named.detection:
        from converters.networks.ssd_mobilenet.tensorflow import without_loops

        frozen = without_loops(frozen, source, named)
    export_onnx(frozen, source, target, layout)


def _export_torchscript(source: Path, target: Path, spec: ModelSpec) -> None:
    from converters.networks.torch import export_chain, export_state_dict

    if source.suffix == ".pth":
        export_state_dict(source, target)
    elif spec.variants[Platform.PYTORCH].source == "tensorflow":
        from converters.networks.tensorflow_chain import read_chain

        export_chain(read_chain(source, _named(spec)), target)
    else:
        raise ConfigError(
            f"{source}: {spec.name} on pytorch is made from a state dict (.pth) or TorchScript (.pt)"
        )


def _named(spec: ModelSpec) -> Variant | None:
    """The published TensorFlow graph's tensor names."""
    return spec.variants.get(Platform.TENSORFLOW)


def _open_graph_def(path: Path, spec: ModelSpec) -> AbstractContextManager[Graph]:
    from converters.formats.tensorflow import open_graph_def

    return open_graph_def(path, _named(spec))


def _open_onnx(path: Path, spec: ModelSpec) -> AbstractContextManager[Graph]:
    from converters.formats.onnx import open_onnx

    return open_onnx(path, spec.variants[Platform.ONNXRUNTIME].preprocess.size_px)


def _open_tflite(path: Path, spec: ModelSpec) -> AbstractContextManager[Graph]:
    from converters.formats.tflite import open_tflite

    return open_tflite(path)


def _open_torch(path: Path, spec: ModelSpec, shape: tuple[int, ...]) -> AbstractContextManager[Graph]:
    expected = spec.variants[Platform.PYTORCH].input
    expected = replace(expected, shape=shape or expected.shape)
    if path.suffix == ".pt":
        from converters.formats.torch import open_torchscript

        return open_torchscript(path, expected)
    if "pytorch" not in spec.sources:
        raise ConversionError(f"{path}: {spec.name} has no state dict; give a TorchScript file (.pt)")
    from converters.networks.torch import open_state_dict

    return open_state_dict(path, expected)


_OPENERS: dict[Platform, Callable[[Path, ModelSpec], AbstractContextManager[Graph]]] = {
    Platform.TENSORFLOW: _open_graph_def,
    Platform.ONNXRUNTIME: _open_onnx,
    Platform.TFLITE: _open_tflite,
}

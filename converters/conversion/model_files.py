"""Opens and exports model files of every kind; each framework is imported when it is first needed."""

import hashlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from converters.conversion import own_files
from converters.conversion.own_files import NOTHING_SAID, Said
from converters.formats.graph import Graph, Images
from harness.errors import ConfigError, ConversionError
from harness.models import manifest
from harness.models.manifest import USER_FILE
from harness.models.platforms import BY_ENDING, Platform, ending_of
from harness.models.spec import Layout, ModelSpec, Nms, Variant

Size = tuple[int, int]
"""(height, width)"""


def open_file(
    path: Path,
    spec: ModelSpec,
    size_px: Size | None = None,
    layout: Layout | None = None,
    *,
    as_served: bool = False,
) -> AbstractContextManager[Graph]:
    """Open a model file with the framework that its ending stands for.

    Args:
        path: `.pb`, `.graphdef`, SavedModel folder, `.onnx`, `.tflite`, `.pt`, `.pth` or `.xml`.
        spec: the model whose task it shares; says what the file leaves open.
        size_px: where the file leaves it open, as PyTorch's always do; the model's own if None.
        layout: where the file leaves that open; if None, the first that runs (PyTorch: NCHW).
        as_served: as the server is to run it, where that rounds otherwise: frozen; and by one thread, as an
            instance that shares the cores with others. One that has them all rounds as the source does, which
            is run so.

    Raises:
        ConversionError: the file isn't of its kind.
    """
    if not path.exists():
        raise ConversionError(f"{path} is missing; convert the model again")
    images = Images(size_px or next(iter(spec.variants.values())).preprocess.size_px, layout)
    threads = 1 if as_served else 0
    if path.is_dir():
        from converters.formats.tensorflow import open_saved_model

        return open_saved_model(path, images, threads)
    platform = BY_ENDING.get(ending_of(path), Platform.TENSORFLOW)
    if platform == Platform.PYTORCH:
        return _open_torch(path, spec, images, as_served=as_served)
    return _OPENERS[platform](path, spec, images, threads)


def export(platform: Platform, source: Path, target: Path, spec: ModelSpec, nms: Nms = Nms.CORRECTED) -> None:
    """Write `source` as a file of `platform`, or copy it where it is one.

    Raises:
        ConversionError: it cannot be expressed there.
    """
    named = _named(spec)
    if ending_of(source) == target.suffix and source.is_file():
        _copy(source, target)
    elif ending_of(source) == ".onnx":
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


def is_copied(source: Path, target: Path) -> bool:
    """Whether `export` takes a file as it is, instead of writing another one."""
    if source.is_dir() or target.is_dir():
        return source.is_dir() == target.is_dir()
    ending = ending_of(source)
    return target.suffix in (ending, ".graphdef" if ending == ".pb" else "")


def digest(path: Path) -> str:
    """SHA-256 of a model file or folder, with the files beside it that hold its weights."""
    files = files_of(path)
    if ending_of(path) == ".onnx" and len(files) > 1:
        return hashlib.sha256("".join(map(manifest.digest, files)).encode()).hexdigest()
    return manifest.digest(path)


def files_of(path: Path) -> list[Path]:
    """All files that a model consists of."""
    if ending_of(path) == ".onnx" and path.is_file():
        from converters.formats.onnx import external_files

        return [path, *(file for file in external_files(path) if file.is_file())]
    return manifest.files_of(path)


def _copy(source: Path, target: Path) -> None:
    if ending_of(source) == ".onnx":
        from converters.formats.onnx import copy_onnx

        copy_onnx(source, target)
    elif ending_of(source) == ".xml":
        from converters.formats.openvino import copy_openvino

        copy_openvino(source, target)
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
    declared = spec.variants[BY_ENDING.get(ending_of(graph.path), Platform.TENSORFLOW)]
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

    if ending_of(source) == ".pth":
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


def _open_graph_def(
    path: Path, spec: ModelSpec, images: Images, threads: int
) -> AbstractContextManager[Graph]:
    from converters.formats.tensorflow import open_graph_def

    return open_graph_def(path, _named(spec), images, threads)


def _open_onnx(path: Path, _: ModelSpec, images: Images, threads: int) -> AbstractContextManager[Graph]:
    from converters.formats.onnx import open_onnx

    return open_onnx(path, images, threads)


def _open_openvino(path: Path, _: ModelSpec, images: Images, threads: int) -> AbstractContextManager[Graph]:
    from converters.formats.openvino import open_openvino

    return open_openvino(path, images, threads)


def _open_tflite(path: Path, _: ModelSpec, images: Images, threads: int) -> AbstractContextManager[Graph]:
    from converters.formats.tflite import open_tflite

    return open_tflite(path, images, threads)


def _open_torch(
    path: Path, spec: ModelSpec, images: Images, *, as_served: bool
) -> AbstractContextManager[Graph]:
    shape = (*images.size_px, 3) if images.layout == Layout.NHWC else (3, *images.size_px)
    expected = replace(spec.variants[Platform.PYTORCH].input, shape=shape)
    if ending_of(path) == ".pt":
        from converters.formats.torch import open_torchscript

        return open_torchscript(path, expected, as_served=as_served)
    if "pytorch" not in spec.sources:
        raise ConversionError(f"{path}: {spec.name} has no state dict; give a TorchScript file (.pt)")
    from converters.networks.torch import open_state_dict

    return open_state_dict(path, expected)


_OPENERS: dict[Platform, Callable[[Path, ModelSpec, Images, int], AbstractContextManager[Graph]]] = {
    Platform.TENSORFLOW: _open_graph_def,
    Platform.ONNXRUNTIME: _open_onnx,
    Platform.OPENVINO: _open_openvino,
    Platform.TFLITE: _open_tflite,
}

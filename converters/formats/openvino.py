"""OpenVINO's door: files of its own kind (IR), an .xml with its weights in a .bin beside it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino

from converters.formats.graph import Array, Graph, Images, describe_images, dtype_of
from converters.formats.reasons import reason_of
from harness.errors import ConversionError

_TYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "u8": "uint8", "i8": "int8"} | {
    "i32": "int32",
    "i64": "int64",
}


@contextmanager
def open_openvino(path: Path, images: Images, threads: int = 0) -> Iterator[Graph]:
    """Open an IR file, to be calculated as precisely as it says.

    Args:
        path: the .xml.
        images: what to take where the file leaves it open.
        threads: 0 for all cores.

    Raises:
        ConversionError: not an IR file, or not one image in.
    """
    model = _read(path)
    if len(model.inputs) != 1:
        raise ConversionError(f"{path}: one input wanted; it has {len(model.inputs)}")
    (source,) = model.inputs
    sizes = _sizes(source.partial_shape)
    if len(sizes) != 4:
        raise ConversionError(
            f"{path}: input {source.any_name} is {source.partial_shape}; a batch of images is wanted"
        )
    word = source.element_type.get_type_name()
    dtype = dtype_of(source.any_name, _TYPES.get(word, word), path)
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    try:
        compiled = openvino.Core().compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise ConversionError(f"{path}: OpenVINO cannot compile it: {reason_of(error)}") from error

    def run(batch: Array) -> list[Array]:
        answers = compiled({source.any_name: batch})
        return [np.array(answers[port]) for port in compiled.outputs]

    names = [port.any_name for port in model.outputs]
    yield describe_images(path, source.any_name, dtype, sizes, images, names, run)


def copy_openvino(source: Path, target: Path) -> None:
    """Copy a file and its weights; tensors without a name, by which servers ask, get one."""
    model = openvino.Core().read_model(source)
    if all(port.names for port in (*model.inputs, *model.outputs)):
        shutil.copyfile(source, target)
        shutil.copyfile(source.with_suffix(".bin"), target.with_suffix(".bin"))
    else:
        openvino.save_model(_read(source), target, compress_to_fp16=False)


def _read(path: Path) -> openvino.Model:
    if not path.with_suffix(".bin").is_file():
        raise ConversionError(f"{path}: its weights, {path.with_suffix('.bin').name}, are not beside it")
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ConversionError(f"{path}: OpenVINO cannot load it: {reason_of(error)}") from error
    for kind, ports in (("input", model.inputs), ("output", model.outputs)):
        for position, port in enumerate(ports):
            if not port.names:
                port.get_tensor().set_names({f"{kind}_{position}"})
    return model


def _sizes(shape: openvino.PartialShape) -> list[int | str]:
    """`?` for an open axis; empty where even the number of axes is open."""
    return [] if shape.rank.is_dynamic else [axis.get_length() if axis.is_static else "?" for axis in shape]

"""TFLite's door: files read and run with LiteRT."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from converters.formats.graph import Array, Graph, Images, describe_images, dtype_of
from converters.formats.native_output import held_back
from converters.formats.reasons import reason_of
from harness.errors import ConversionError
from harness.models.declared.ssd_mobilenet import TFLITE_DETECTION
from harness.models.spec import Quantization


@contextmanager
def open_tflite(path: Path, images: Images, threads: int = 0) -> Iterator[Graph]:
    """Open a TFLite file; tensors have the names that the interpreter reports.

    Args:
        path: the file.
        images: what to take where the file leaves it open.
        threads: 0 for all cores.

    Raises:
        ConversionError: not a TFLite file, or not one image in.
    """
    threads = threads or os.cpu_count() or 1
    interpreter = _open(path, threads)
    is_detector = has_detection(path)
    if is_detector and threads > 1:
        # Run by n threads, the operation does not find what is of class n (see `tflite_detection`).
        interpreter = _open(path, 1)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
        shapes = [list(tensor["shape"]) for tensor in inputs]
        raise ConversionError(f"{path}: one batch of images wanted as input; it has {shapes}")
    source = inputs[0]
    # Without open axes there is no signature. Every shape in such a file can be resized: whether the graph
    # stands it is found out by running it.
    signature = source["shape_signature"] if len(source["shape_signature"]) else source["shape"]
    # Any number of images can be asked for: whether it stands that is found out.
    declared = ["?", *(int(side) if side > 0 else "?" for side in signature[1:])]
    dtype = dtype_of(source["name"], source["dtype"], path)
    names = [output["name"] for output in outputs]
    run = _runner(interpreter)
    # That operation takes one image at a time.
    run = _one_by_one(run) if is_detector else run
    graph = describe_images(path, source["name"], dtype, declared, images, names, run)
    scale, zero_point = source["quantization"]
    # A scale of 0 says that the tensor is not quantised.
    yield replace(graph, quantization=Quantization(float(scale), int(zero_point)) if scale else None)


def _open(path: Path, threads: int) -> Interpreter:
    try:
        with held_back():
            interpreter = Interpreter(os.fspath(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f"{path}: LiteRT cannot load it: {reason_of(error)}") from error
    return interpreter


def _one_by_one(run: Callable[[Array], list[Array]]) -> Callable[[Array], list[Array]]:
    """Run a batch of any size as batches of 1."""

    def run_all(batch: Array) -> list[Array]:
        parts = [run(batch[index : index + 1]) for index in range(len(batch))]
        return [np.concatenate(answers) for answers in zip(*parts, strict=True)]

    return run_all


def _runner(interpreter: Interpreter) -> Callable[[Array], list[Array]]:
    source = interpreter.get_input_details()[0]["index"]
    targets = [output["index"] for output in interpreter.get_output_details()]
    shape: tuple[int, ...] = ()

    def run(batch: Array) -> list[Array]:
        nonlocal shape
        if batch.shape != shape:
            # Not every graph stands every batch size; after one that failed nothing is allocated.
            shape = ()
            interpreter.resize_tensor_input(source, batch.shape)
            with held_back():
                interpreter.allocate_tensors()
            shape = batch.shape
        interpreter.set_tensor(source, batch)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(index)) for index in targets]

    return run


def has_detection(path: Path) -> bool:
    """Whether a TFLite file, which must be sound, has that operation anywhere."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    codes = (model.OperatorCodes(index).CustomCode() for index in range(model.OperatorCodesLength()))
    return TFLITE_DETECTION.encode() in codes

"""PyTorch's door: TorchScript files and state dicts, read, run and written. Slow to import."""

import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters.formats.graph import OTHER_IMAGES, Array, Graph, describe
from converters.formats.native_output import held_back
from converters.formats.reasons import reason_of
from harness.errors import ConversionError
from harness.models.spec import DType, TensorSpec

_OF_EXPORT = {"archive_format", "serialized_exported_program.json"}
"""What is in every archive of torch.export of one of its versions, and in no other."""

INPUT_NAME = "INPUT__0"
"""TorchScript names no tensors: Triton's PyTorch backend goes by this, the number being the position."""

_OF_SIZE = re.compile(r"shape|size|dimension|channel", re.IGNORECASE)
"""What PyTorch says of images of another size, or another order of axes, than a module takes."""
_LOAD_ERRORS = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError)
_AROUND = {"module", "_orig_mod", "model"}
"""DataParallel's, torch.compile's, and PyTorch Lightning's customary name."""
_OBJECT = re.compile(r"Unsupported (?:global|class|operand)\W+(?:GLOBAL )?([\w.]+)")
"""What `torch.load` says of a pickle that would run code."""


@contextmanager
def open_torchscript(path: Path, expected: TensorSpec, *, as_served: bool = False) -> Iterator[Graph]:
    """Open a TorchScript file, which doesn't say what it takes: `expected` does, or the same in another type.

    Args:
        path: the file.
        expected: its input.
        as_served: as `backends/pytorch` runs it, which rounds otherwise: frozen, in the CPU's own layouts,
            by one thread.

    Raises:
        ConversionError: not a TorchScript file, or it doesn't run on such an input.
    """
    try:
        module = torch.jit.load(os.fspath(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        if as_served:
            module = torch.jit.optimize_for_inference(torch.jit.freeze(module))
    except (RuntimeError, ValueError) as error:
        reason = _other_kind(path) or f"PyTorch cannot load it as TorchScript: {reason_of(error)}"
        raise ConversionError(f"{path}: {reason}") from error
    threads = 1 if as_served else 0
    refusals = []
    for dtype in (expected.dtype, DType.FP16, DType.FP64):
        try:
            graph = describe_module(path, module, replace(expected, dtype=dtype), threads)
            break
        except ConversionError as error:
            refusals.append(error)
    else:
        raise refusals[0]
    yield graph


def _other_kind(path: Path) -> str:
    """What a file that is no TorchScript is instead, and what to do; empty where nobody knows."""
    if _is_exported_program(path):
        return "a program of torch.export, not TorchScript: save torch.jit.trace(model, example) instead"
    try:
        with held_back():
            torch.load(path, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        return _pickled(error)
    return "a state dict, not TorchScript: name it .pth (torchvision's resnet50's), or save TorchScript"


def _is_exported_program(path: Path) -> bool:
    """Whether a file is an archive that `torch.export.save` made."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return False
    return bool(names & _OF_EXPORT)


def _pickled(error: Exception) -> str:
    """What to do where an error says that loading a file would run its code; empty where it does not."""
    found = _OBJECT.search(str(error))
    return (
        f"a whole module, or another Python object ({found[1]}), which only its own code can load: "
        "save model.state_dict() (.pth) or TorchScript (.pt)"
        if found
        else ""
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict out of what it was saved in, without the prefixes of what the module was wrapped in.

    Raises:
        ConversionError: not a state dict, or several.
    """
    try:
        # weights_only: a pickle may run any code, a state dict needs none. It warns of other kinds of files.
        with held_back():
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        reason = _pickled(error) or f"PyTorch cannot load it as a state dict: {reason_of(error)}"
        if "TorchScript archive" in str(error):
            reason = "TorchScript, not a state dict: name it .pt"
        raise ConversionError(f"{path}: {reason}") from error
    state = found
    if not _is_state(found):
        inner = {key: value for key, value in found.items() if _is_state(value)} if _is_dict(found) else {}
        if len(inner) != 1:
            has = f"it has several: {', '.join(map(str, inner))}" if inner else "it has none"
            raise ConversionError(f"{path}: one state dict wanted, a dictionary of tensors; {has}")
        (state,) = inner.values()
    return _without_prefix(dict(state))


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_state(value: Any) -> bool:
    return _is_dict(value) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the names of modules around the network, which every key then begins with."""
    while (around := {key.partition(".")[0] for key in state}) <= _AROUND and len(around) == 1:
        state = {key.partition(".")[2]: tensor for key, tensor in state.items()}
    return state


def save_script(module: nn.Module, target: Path) -> None:
    """Write a module as TorchScript."""
    # Freezing folds each batch normalisation into its convolution.
    torch.jit.freeze(torch.jit.script(module)).save(os.fspath(target))


@contextmanager
def _using(threads: int) -> Iterator[None]:
    """Calculate by so many threads in this block, which PyTorch knows for the whole process; 0 as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_module(path: Path, module: Any, expected: TensorSpec, threads: int = 0) -> Graph:
    """A loaded module as a `Graph`; what it takes is `expected`'s dtype and shape."""

    def run(batch: Array) -> list[Array]:
        with torch.inference_mode(), _using(threads):
            answer = module(torch.from_numpy(np.array(batch)))
        return _numbers(path, answer)

    taken = TensorSpec(INPUT_NAME, expected.dtype, expected.shape)
    return describe(path, taken, None, 0, run, lambda reason: OTHER_IMAGES if _OF_SIZE.search(reason) else "")


def _numbers(path: Path, answer: Any) -> list[Array]:
    """What a module answered, as a server takes it.

    Raises:
        ConversionError: no server takes it.
    """
    values = answer if isinstance(answer, tuple | list) else [answer]
    if others := [value for value in values if not isinstance(value, Tensor)]:
        keys = f"dictionary ({', '.join(map(str, others[0]))})" if _is_dict(others[0]) else ""
        raise ConversionError(
            f"{path}: answers with a {keys or type(others[0]).__name__}, and Triton takes a tensor or a "
            "tuple of tensors: export a module that returns these"
        )
    if any(value.dtype == torch.bfloat16 for value in values):
        raise ConversionError(f"{path}: answers in bfloat16: export a module that returns float32 (.float())")
    return [value.numpy() for value in values]

"""PyTorch's door: TorchScript files, read, run and written. Slow to import."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters.formats.graph import Array, Graph, describe
from harness.errors import ConversionError
from harness.models.spec import TensorSpec

INPUT_NAME = "INPUT__0"
"""TorchScript names no tensors: Triton's PyTorch backend goes by this, the number being the position."""


@contextmanager
def open_torchscript(path: Path, expected: TensorSpec) -> Iterator[Graph]:
    """Open a TorchScript file, which doesn't say what it takes: `expected` does.

    Raises:
        ConversionError: not a TorchScript file, or it doesn't run on such an input.
    """
    try:
        module = torch.jit.load(os.fspath(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConversionError(f"{path}: PyTorch cannot load it as TorchScript: {reason}") from error
    yield describe_module(path, module, expected)


def save_script(module: nn.Module, target: Path) -> None:
    """Write a module as TorchScript."""
    # Freezing folds each batch normalisation into its convolution.
    torch.jit.freeze(torch.jit.script(module)).save(os.fspath(target))


def describe_module(path: Path, module: Any, expected: TensorSpec) -> Graph:
    """A loaded module as a `Graph`; what it takes is `expected`'s dtype and shape."""

    def run(batch: Array) -> list[Array]:
        with torch.inference_mode():
            answer = module(torch.from_numpy(np.array(batch)))
        return [value.numpy() for value in ([answer] if isinstance(answer, Tensor) else answer)]

    return describe(path, TensorSpec(INPUT_NAME, expected.dtype, expected.shape), None, 0, run)

"""PyTorch's door: state dicts and TorchScript files, read, run and written. Slow to import."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters.chain import Chain
from converters.graph import Array, Graph, describe
from converters.seeded import CLASSIFIER, Arrays
from converters.torch_modules import ResNet50, build_chain
from harness.errors import ConversionError
from harness.models.recipes import IMAGENET_PYTORCH
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
    yield _describe(path, module, expected)


@contextmanager
def open_state_dict(path: Path, expected: TensorSpec) -> Iterator[Graph]:
    """Open ResNet-50's state dict as the eager module that it belongs to."""
    yield _describe(path, _load_resnet50(path), expected)


def export_state_dict(source: Path, target: Path) -> None:
    """Write ResNet-50's state dict as TorchScript."""
    _save_script(_load_resnet50(source), target)


def export_chain(chain: Chain, target: Path) -> None:
    """Write a network without branches as TorchScript."""
    _save_script(build_chain(chain).eval(), target)


def build_resnet50(arrays: Arrays, target: Path) -> None:
    """Write seeded weights as the published state dict: torchvision's keys, classes and input scale."""
    state = {}
    for key, array in arrays.items():
        layer, _, part = key.rpartition("/")
        if layer != CLASSIFIER:
            axes = (3, 2, 0, 1) if part == "weights" else (0,)
            state[f"{layer}.{_TORCH_PARTS[part]}"] = torch.from_numpy(array.transpose(axes).copy())
    # From 0-255 to this input's (x / 255 - mean) / std: the means are TensorFlow's, the scale moves to conv1.
    _, _, deviation = IMAGENET_PYTORCH.steps
    scale = 255 * torch.tensor(deviation.values).reshape(1, 3, 1, 1)
    state["conv1.weight"] = (state["conv1.weight"] * scale).contiguous()
    # Class 0 is the background, which PyTorch's models don't have.
    state["fc.weight"] = torch.from_numpy(arrays[f"{CLASSIFIER}/weights"][:, 1:].T.copy())
    state["fc.bias"] = torch.from_numpy(arrays[f"{CLASSIFIER}/bias"][1:].copy())
    with target.open("wb") as stream:
        torch.save(state, stream)


_TORCH_PARTS = {
    "weights": "weight",
    "gamma": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def _load_resnet50(path: Path) -> nn.Module:
    try:
        # weights_only: a pickle may run any code, a state dict needs none.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ConversionError(f"{path}: PyTorch cannot load it as a state dict: {reason}") from error
    module = ResNet50()
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"{path}: not the state dict of a ResNet-50: {reason}") from error
    return module.eval()


def _save_script(module: nn.Module, target: Path) -> None:
    # Freezing folds each batch normalisation into its convolution.
    torch.jit.freeze(torch.jit.script(module)).save(os.fspath(target))


def _describe(path: Path, module: Any, expected: TensorSpec) -> Graph:
    def run(batch: Array) -> list[Array]:
        with torch.inference_mode():
            answer = module(torch.from_numpy(np.array(batch)))
        return [value.numpy() for value in ([answer] if isinstance(answer, Tensor) else answer)]

    return describe(path, TensorSpec(INPUT_NAME, expected.dtype, expected.shape), None, 0, run)

"""What a model file says about itself, in the same terms for every framework."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.formats.reasons import reason_of
from harness.errors import ConversionError
from harness.models.spec import DType, Layout, Quantization, TensorSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """A model file opened by its own framework; valid until the opener's context ends."""

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    """In the order in which `run` returns them; shapes as a run of one sample gave them."""
    fixed_batch: int
    """The batch size that the file insists on; 0 where it takes any."""
    run: Callable[[Array], list[Array]]
    """(n, *input.shape) in the input's dtype -> one array per output, batch axis first."""
    open_axes: tuple[tuple[int, ...], ...] = ()
    """Of each output's shape, the axes on which another sample may give another size, as far as the file
    says so; empty where it does not."""
    quantization: Quantization | None = None
    """Of the input."""

    @property
    def layout(self) -> Layout:
        """Axis order of the input."""
        return layout_of(self.input.shape, self.path)

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the input."""
        first, second, third = self.input.shape
        return (first, second) if self.layout == Layout.NHWC else (second, third)


def layout_of(shape: Sequence[int], path: Path) -> Layout:
    """Tell the axis order of an image from where its three channels are.

    Raises:
        ConversionError: no axis of three, or not an image at all.
    """
    if len(shape) == 3 and shape[2] == 3:
        return Layout.NHWC
    if len(shape) == 3 and shape[0] == 3:
        return Layout.NCHW
    raise ConversionError(
        f"{path}: the input's shape {list(shape)} is not an RGB image, in either axis order"
    )


def close_shape(shape: Sequence[Any], size_px: tuple[int, int]) -> tuple[int, ...]:
    """Fill in the height and width that a file leaves open.

    Args:
        shape: of a batch of images; an open axis is anything but a positive number.
        size_px: (height, width) to fill in.

    Returns:
        The shape, 0 for an open axis that is neither.
    """
    known = [side if isinstance(side, int) and side > 0 else 0 for side in shape]
    if len(known) == 4:
        axes = (2, 3) if known[1] == 3 else (1, 2)
        for axis, side in zip(axes, size_px, strict=True):
            known[axis] = known[axis] or side
    return tuple(known)


def dtype_of(name: str, dtype: Any, path: Path) -> DType:
    """Translate anything that numpy takes for a type.

    Raises:
        ConversionError: a type that no model here uses.
    """
    try:
        return DType(np.dtype(dtype).name)
    except (TypeError, ValueError) as error:
        word = getattr(dtype, "__name__", dtype)
        raise ConversionError(
            f"{path}: tensor {name} is {word}; supported types: {', '.join(DType)}"
        ) from error


def describe(
    path: Path,
    input_spec: TensorSpec,
    output_names: Sequence[str] | None,
    fixed_batch: int,
    run: Callable[[Array], list[Array]],
    hint: str = "",
) -> Graph:
    """Complete a graph's description by running it once, on zeros.

    Args:
        path: the file.
        input_spec: what it takes.
        output_names: in the order of `run`'s answers; None where the file has no names, and its outputs are
            numbered as Triton's PyTorch backend does.
        fixed_batch: the batch size that it insists on; 0 for any.
        run: runs it.
        hint: what to try should it not run.

    Raises:
        ConversionError: it doesn't run, or its answers have no batch axis.
    """
    batch = fixed_batch or 1
    zeros = np.zeros((batch, *input_spec.shape), dtype=input_spec.dtype.value)
    try:
        answers = run(zeros)
    except Exception as error:  # each framework has its own, often bare RuntimeError
        raise ConversionError(
            f"{path}: does not run on an input of {list(zeros.shape)}: {reason_of(error)}{hint}"
        ) from error
    outputs = []
    output_names = output_names or [f"OUTPUT__{index}" for index in range(len(answers))]
    for name, answer in zip(output_names, answers, strict=True):
        if answer.shape[:1] != (batch,):
            raise ConversionError(f"{path}: output {name} of shape {list(answer.shape)} has no batch axis")
        outputs.append(TensorSpec(name, dtype_of(name, answer.dtype, path), answer.shape[1:]))
    return Graph(path, input_spec, tuple(outputs), fixed_batch, run)


def relayout(batch: Array, source: Layout, target: Layout) -> Array:
    """Change the axis order of a batch of images (a view where nothing changes)."""
    if source == target:
        return batch
    axes = (0, 3, 1, 2) if target == Layout.NCHW else (0, 2, 3, 1)
    return np.ascontiguousarray(batch.transpose(axes))

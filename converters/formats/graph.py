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

OTHER_IMAGES = "; --preprocess size=…,layout=… says others"
"""What to try where a file does not say which images it takes."""


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


@dataclass(frozen=True)
class Images:
    """What the images of a file are like where it leaves that open."""

    size_px: tuple[int, int]
    """(height, width)"""
    layout: Layout | None = None
    """None where nobody says: both are tried."""


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


def closed_shapes(shape: Sequence[Any], images: Images) -> list[tuple[int, ...]]:
    """Fill in what a file leaves open of a batch of images.

    Args:
        shape: with the batch axis; an open axis is anything but a positive number.
        images: what to fill in.

    Returns:
        The shapes that may be meant, the likeliest first: two where the place of the channels is open, too.
        0 for the batch axis, and for what no image fits.
    """
    known = tuple(side if isinstance(side, int) and side > 0 else 0 for side in shape)
    if len(known) != 4:
        return [known]
    height, width = images.size_px
    whole = {Layout.NCHW: (0, 3, height, width), Layout.NHWC: (0, height, width, 3)}
    channels = {Layout.NCHW: known[1], Layout.NHWC: known[3]}
    layouts = [layout for layout, side in channels.items() if side == 3][:1]
    if not layouts:
        possible = [layout for layout, side in channels.items() if side == 0]
        layouts = [layout for layout in possible if layout == images.layout] or possible
    pairs = [zip(known, whole[layout], strict=True) for layout in layouts]
    return [tuple(side or wanted for side, wanted in each) for each in pairs] or [known]


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
    hint: Callable[[str], str] = lambda _: "",
) -> Graph:
    """Complete a graph's description by running it once, on zeros.

    Args:
        path: the file.
        input_spec: what it takes.
        output_names: in the order of `run`'s answers; None where the file has no names, and its outputs are
            numbered as Triton's PyTorch backend does.
        fixed_batch: the batch size that it insists on; 0 for any.
        run: runs it.
        hint: what to try should it not run, for the reason that its framework gives.

    Raises:
        ConversionError: it doesn't run, or its answers have no batch axis.
    """
    batch = fixed_batch or 1
    zeros = np.zeros((batch, *input_spec.shape), dtype=input_spec.dtype.value)
    try:
        answers = run(zeros)
    except ConversionError:
        raise
    except Exception as error:  # each framework has its own, often bare RuntimeError
        reason = reason_of(error)
        raise ConversionError(
            f"{path}: does not run on an input of {list(zeros.shape)}: {reason}{hint(reason)}"
        ) from error
    outputs = []
    output_names = output_names or [f"OUTPUT__{index}" for index in range(len(answers))]
    for name, answer in zip(output_names, answers, strict=True):
        if answer.shape[:1] != (batch,):
            raise ConversionError(f"{path}: output {name} of shape {list(answer.shape)} has no batch axis")
        outputs.append(TensorSpec(name, dtype_of(name, answer.dtype, path), answer.shape[1:]))
    return Graph(path, input_spec, tuple(outputs), fixed_batch, run)


def describe_images(
    path: Path,
    name: str,
    dtype: DType,
    declared: Sequence[Any],
    images: Images,
    output_names: Sequence[str],
    run: Callable[[Array], list[Array]],
) -> Graph:
    """Complete a graph's description as `describe`; in the first axis order that runs, where that is open.

    Args:
        path: the file.
        name: of its input.
        dtype: of its input.
        declared: the input's four axes, open ones as in `closed_shapes`.
        images: what to take for these.
        output_names: in the order of `run`'s answers.
        run: runs it.

    Raises:
        ConversionError: its input is no image, or it does not run on any.
    """
    shapes = closed_shapes(declared, images)
    is_open = shapes[0][1:] != tuple(declared[1:])

    def hint(_reason: str) -> str:
        return OTHER_IMAGES if is_open else ""

    for shape in shapes:
        layout_of(shape[1:], path)
        try:
            return describe(path, TensorSpec(name, dtype, shape[1:]), output_names, shape[0], run, hint)
        except ConversionError:
            if len(shapes) == 1:
                raise
    tried = " nor on ".join(str(list(shape[1:])) for shape in shapes)
    listing = ", ".join(map(str, declared))
    raise ConversionError(
        f"{path}: its input {name} [{listing}] leaves the size and the order of its axes open, and does not "
        f"run on images of {tried}: say --preprocess size=…,layout={' or '.join(Layout)}"
    )


def relayout(batch: Array, source: Layout, target: Layout) -> Array:
    """Change the axis order of a batch of images (a view where nothing changes)."""
    if source == target:
        return batch
    axes = (0, 3, 1, 2) if target == Layout.NCHW else (0, 2, 3, 1)
    return np.ascontiguousarray(batch.transpose(axes))

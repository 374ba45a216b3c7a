"""What a user's file takes: the recipe fitted to its input, which may not hold what the recipe makes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from converters.formats.graph import Array, Graph
from harness.data.preprocess import apply
from harness.errors import ConversionError
from harness.models import own_recipes
from harness.models.recipes import COCO_300_PT, RECIPES, fit, is_for
from harness.models.spec import DType, Layout, Preprocess, Quantization, Resize, Task, Variant

_CLIPPED = 0.05
"""Share of what a recipe makes that may be beyond a quantised input's range: calibration leaves out the
farthest values on purpose."""
_USED = 0.25
"""Smallest share of a quantised input's range that a recipe may use: of a network for other numbers it is a
hundredth; a MobileNet whose input holds three times what it was trained with is right all the same."""


def recipe_of(graph: Graph, base: Variant, text: str) -> Preprocess:
    """The recipe, with the axis order, size and type of the file's input.

    Args:
        graph: the file, opened.
        base: the model's own variant, whose recipe holds where the user says none.
        text: what the user says, or nothing.

    Raises:
        ConversionError: the input is of a type that no image has, or the recipe does not make such numbers.
    """
    dtype, layout = graph.input.dtype, graph.layout
    is_quantized = graph.quantization is not None
    if dtype in (DType.INT64, DType.INT32) or (dtype == DType.INT8 and not is_quantized):
        scale = " without a scale" if dtype == DType.INT8 else ""
        raise ConversionError(f"{graph.path}: images of {dtype}{scale} are not supported")
    chosen = own_recipes.parse(text, _task(base)) if text else base.preprocess
    height, width = graph.size_px
    if own_recipes.asks_for_size(text) and chosen.size_px != graph.size_px:
        raise ConversionError(f"{graph.path}: takes images of {height}x{width}, not as {text!r} says")
    if own_recipes.asks_for_layout(text) and chosen.layout != layout:
        raise ConversionError(f"{graph.path}: takes images as {layout}, not as {text!r} says")

    def fitted(recipe: Preprocess, quantization: Quantization | None = None) -> Preprocess:
        return fit(recipe, layout=layout, size_px=graph.size_px, dtype=dtype, quantization=quantization)

    if dtype.is_whole and not is_quantized:
        if chosen.name == own_recipes.OWN and chosen.steps:
            raise ConversionError(
                f"{graph.path}: takes bytes as they are: leave scale, mean and std out of {text!r}"
            )
        return fitted(chosen)
    arithmetic = fitted(chosen, graph.quantization)
    if chosen.dtype == DType.UINT8 and not (is_quantized and _fits(arithmetic)):
        # Exports of the same network that leave the normalisation to the client.
        arithmetic = fitted(COCO_300_PT, graph.quantization)
    if is_quantized and _takes_pixels(arithmetic):
        return fitted(chosen)
    if text and arithmetic.name != chosen.name:
        raise ConversionError(
            f"{graph.path}: takes {dtype}, and {text} makes bytes; "
            f"{COCO_300_PT.name} makes numbers from -1 to 1"
        )
    return arithmetic


def check_range(graph: Graph, base: Variant, recipe: Preprocess) -> None:
    """See that a quantised input can hold what a recipe makes which the user has not said.

    Args:
        graph: the file, opened.
        base: the model's own variant.
        recipe: of `recipe_of`.

    Raises:
        ConversionError: it cannot, or only in a few of its steps: the file was made for other numbers.
    """
    if recipe.quantization is None or _fits(recipe):
        return
    held, made = _words(_held(recipe)), _words(_made(recipe))
    fitting = max(_others(recipe, _task(base)), key=lambda pair: _used(pair[1]), default=None)
    advice = "--preprocess scale=…,mean=…,std=…, as it was trained"
    if fitting:
        advice = f"--preprocess {fitting[0]}, which makes {_words(_made(fitting[1]))}, if it was trained so"
    raise ConversionError(
        f"{graph.path}: its input holds {held}, and the recipe {recipe.name} makes {made}: say {advice}, "
        f"or --preprocess {recipe.name} to keep it"
    )


def clipping(recipe: Preprocess) -> str:
    """What a quantised input cannot hold of what a recipe makes, in words; nothing if that is little."""
    if recipe.quantization is None or (share := _clipped(recipe)) <= _CLIPPED:
        return ""
    return (
        f"its input holds {_words(_held(recipe))}, and the recipe {recipe.name} makes "
        f"{_words(_made(recipe))}: {share:.0%} of all pixel values are cut off"
    )


def _task(base: Variant) -> Task:
    return Task.DETECTION if base.detection else Task.CLASSIFICATION


def _others(recipe: Preprocess, task: Task) -> Iterator[tuple[str, Preprocess]]:
    """Other arithmetic that an input can hold, as `--preprocess` takes it."""
    named = [name for name, each in RECIPES.items() if is_for(task, each) and each.dtype == DType.FP32]
    for text in (*named, *(f"{recipe.name},scale={scale},mean=0,std=1" for scale in ("1/255", "1"))):
        other = replace(recipe, steps=own_recipes.parse(text, task).steps)
        if _fits(other):
            yield text, other


def _fits(recipe: Preprocess) -> bool:
    return _clipped(recipe) <= _CLIPPED and _used(recipe) >= _USED


def _clipped(recipe: Preprocess) -> float:
    """Share of what a recipe makes that is beyond its quantised input's range."""
    low, high = _held(recipe)
    made, half_a_step = _made(recipe), _quantization(recipe).scale / 2
    return float(((made < low - half_a_step) | (made > high + half_a_step)).mean())


def _used(recipe: Preprocess) -> float:
    """Share of its quantised input's range that a recipe makes anything of."""
    low, high = _held(recipe)
    made = _made(recipe)
    return float(min(made.max(), high) - max(made.min(), low)) / (high - low)


def _held(recipe: Preprocess) -> tuple[float, float]:
    """The least and the greatest number that a recipe's quantised input can hold."""
    how, limits = _quantization(recipe), np.iinfo(recipe.dtype.value)
    return (limits.min - how.zero_point) * how.scale, (limits.max - how.zero_point) * how.scale


def _quantization(recipe: Preprocess) -> Quantization:
    assert recipe.quantization is not None
    return recipe.quantization


def _made(recipe: Preprocess) -> Array:
    """What a recipe makes of every pixel value, in each channel, before it is quantised."""
    return _of_every_pixel(replace(recipe, dtype=DType.FP32, quantization=None)).astype(np.float64)


def _takes_pixels(recipe: Preprocess) -> bool:
    """Whether a quantised input stores each pixel as it is, or its neighbour, as the published networks' do.

    Then it gets pixels as they are, which is what such a network was trained with.
    """
    if recipe.dtype != DType.UINT8:
        return False
    return int(np.abs(_of_every_pixel(recipe).astype(np.int64) - _EVERY_PIXEL).max()) <= 1


_EVERY_PIXEL = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)


def _of_every_pixel(recipe: Preprocess) -> Array:
    """What a recipe makes of each pixel value in each channel, (16, 16, 3)."""
    plain = replace(recipe, resize=Resize.ASPECT_LINEAR, size_px=(16, 16), crop=1.0, layout=Layout.NHWC)
    return apply(_EVERY_PIXEL, plain)


def _words(numbers: Array | tuple[float, float]) -> str:
    return f"{np.min(numbers):.3g} to {np.max(numbers):.3g}"

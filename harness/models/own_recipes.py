"""Preprocessing that a user spells out, and any recipe written in the same words.

`[NAME,]key=value,…` with the keys of `KEYS`; e.g. `scale=1/255,mean=0.485,0.456,0.406,order=BGR`. A pixel x
becomes (x * scale - mean) / std.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.errors import ConfigError
from harness.models.recipes import RECIPES
from harness.models.spec import ChannelOrder, DType, Layout, Preprocess, Resize, Step, Task

OWN = "own"
"""Name of a recipe that was spelled out."""

KEYS = ("size", "resize", "crop", "scale", "mean", "std", "order", "layout")
GRAMMAR = (
    "NAME of a data set, or key=value,… with size=224 or 192x256 (height x width), "
    "resize=area|linear|pillow|stretch, crop=0.875, scale=1/255, mean=M or M,M,M, std=S or S,S,S, "
    "order=RGB|BGR, layout=NCHW|NHWC; (pixel * scale - mean) / std in the channels' order; "
    "NAME,key=value,… changes some of NAME's"
)

_RESIZES = {
    "area": Resize.ASPECT_AREA,
    "linear": Resize.ASPECT_LINEAR,
    "pillow": Resize.ASPECT_PILLOW_BILINEAR,
    "stretch": Resize.STRETCH_LINEAR,
}
_WORDS = {resize: word for word, resize in _RESIZES.items()}
_PIXELS = {
    task: Preprocess(OWN, resize, (size, size), (), Layout.NHWC)
    for task, resize, size in (
        (Task.CLASSIFICATION, Resize.ASPECT_LINEAR, 224),
        (Task.DETECTION, Resize.STRETCH_LINEAR, 300),
    )
}
"""What holds where nothing else is said: pixels as they are."""


def parse(text: str, task: Task) -> Preprocess:
    """Read a recipe's name, or one that is spelled out.

    Size and layout are the file's own, where the text does not say them.

    Raises:
        ConfigError: it cannot be understood; says which part.
    """
    if text in RECIPES:
        return RECIPES[text]
    name, given = _split(text)
    if name and name not in RECIPES:
        raise _error(text, f"{name!r} is neither a recipe ({', '.join(RECIPES)}) nor key=value")
    recipe = replace(RECIPES[name], name=OWN) if name else _PIXELS[task]
    return _changed(text, recipe, given)


def describe(recipe: Preprocess) -> str:
    """Write a recipe out, as `parse` takes it."""
    height, width = recipe.size_px
    parts = [f"size={height}" if height == width else f"size={height}x{width}"]
    parts.append(f"resize={_WORDS[recipe.resize]}")
    if recipe.resize != Resize.STRETCH_LINEAR:
        parts.append(f"crop={recipe.crop:g}")
    parts += _arithmetic(recipe.steps)
    parts += [f"order={recipe.order}", f"layout={recipe.layout}"]
    if recipe.quantization:
        how = recipe.quantization
        parts.append(f"then {recipe.dtype} of scale {how.scale:g} and zero point {how.zero_point}")
    elif recipe.dtype != DType.FP32:
        parts.append(f"as {recipe.dtype}")
    return ",".join(parts)


def asks_for_size(text: str) -> bool:
    """Whether a text names the size in so many words."""
    return "size" in _split(text)[1]


def size_of(text: str, task: Task) -> tuple[int, int] | None:
    """(height, width) that a text names, or its recipe has; None where it leaves the size to the file."""
    name, given = _split(text)
    return parse(text, task).size_px if name or "size" in given else None


def asks_for_layout(text: str) -> bool:
    """Whether a text names the axis order in so many words."""
    return "layout" in _split(text)[1]


def _split(text: str) -> tuple[str, dict[str, list[str]]]:
    """The name in front, if any, and the values by key: what has no `=` is one more of the key before."""
    name, given, key = "", dict[str, list[str]](), ""
    for position, part in enumerate(piece.strip() for piece in text.split(",")):
        word, is_pair, value = part.partition("=")
        if is_pair:
            key = word.strip().lower()
            if key in given:
                raise _error(text, f"{key} is given twice")
            if key not in KEYS:
                raise _error(text, f"unknown key {key!r}: there are {', '.join(KEYS)}")
            given[key] = [value.strip()]
        elif position == 0:
            name = part
        elif not key:
            raise _error(text, f"{part!r} is no key=value")
        else:
            given[key].append(part)
    return name, given


def _changed(text: str, recipe: Preprocess, given: Mapping[str, list[str]]) -> Preprocess:
    for key in ("size", "resize", "crop", "scale", "order", "layout"):
        if len(given.get(key, ())) > 1:
            raise _error(text, f"{key} takes one value, not {', '.join(given[key])}")
    if "resize" in given:
        recipe = replace(recipe, resize=_RESIZES[_word(text, given["resize"][0].lower(), _RESIZES)])
    if "layout" in given:
        recipe = replace(recipe, layout=Layout(_word(text, given["layout"][0].upper(), Layout)))
    if "order" in given:
        order = ChannelOrder(_word(text, given["order"][0].upper(), ChannelOrder))
        if order != recipe.order:
            # Each channel keeps its own figures.
            steps = tuple(replace(step, values=step.values[::-1]) for step in recipe.steps)
            recipe = replace(recipe, order=order, steps=steps)
    if "size" in given:
        recipe = replace(recipe, size_px=_size(text, given["size"][0]))
    if "crop" in given:
        crop = _number(text, "crop", given["crop"][0])
        if not 0 < crop <= 1:
            raise _error(text, f"crop is the share that is kept, more than 0 and at most 1, not {crop:g}")
        if recipe.resize == Resize.STRETCH_LINEAR:
            raise _error(text, "resize=stretch keeps the whole image: leave crop out")
        recipe = replace(recipe, crop=crop)
    if given.keys() & {"scale", "mean", "std"}:
        # What is not said stays NAME's.
        by_key = {**_by_key(recipe.steps), **_steps(text, given)}
        steps = tuple(by_key[key] for key in ("scale", "mean", "std") if key in by_key)
        recipe = replace(recipe, steps=steps, dtype=DType.FP32)
    return recipe


def _steps(text: str, given: Mapping[str, list[str]]) -> dict[str, Step]:
    """What is said of the arithmetic, by the grammar's keys."""
    for key in ("mean", "std"):
        if len(given.get(key, ())) not in (0, 1, 3):
            raise _error(text, f"{key} takes one number or three, not {len(given[key])}")
    steps = {}
    if "scale" in given:
        share = re.fullmatch(r"1(?:\.0*)?\s*/\s*(.+)", given["scale"][0])
        # As the reference does: 1/255 as a factor would have other last bits.
        steps["scale"] = (
            Step("divide", (_nonzero(text, "scale", share[1]),))
            if share
            else Step("multiply", (_nonzero(text, "scale", given["scale"][0]),))
        )
    if "mean" in given:
        steps["mean"] = Step("subtract", tuple(_number(text, "mean", each) for each in given["mean"]))
    if "std" in given:
        steps["std"] = Step("divide", tuple(_nonzero(text, "std", each) for each in given["std"]))
    return steps


def _by_key(steps: tuple[Step, ...]) -> dict[str, Step]:
    """Steps by the grammar's keys, in their order: a factor in front for all channels, a mean, a divisor."""
    found = {}
    for index, step in enumerate(steps):
        is_scale = index == 0 and len(step.values) == 1
        found["mean" if step.op == "subtract" else "scale" if is_scale else "std"] = step
    return found


def _arithmetic(steps: tuple[Step, ...]) -> list[str]:
    """The steps in the words of the grammar."""
    parts = []
    for key, step in _by_key(steps).items():
        # imagenet_mobilenet's last one is a factor.
        is_factor = key == "std" and step.op == "multiply"
        values = ",".join(f"{1 / value if is_factor else value:g}" for value in step.values)
        parts.append(f"{key}={'1/' if key == 'scale' and step.op == 'divide' else ''}{values}")
    return parts


def _word(text: str, word: str, known: Iterable[str]) -> str:
    words = list(map(str, known))
    if word not in words:
        raise _error(text, f"{word!r} is none of {', '.join(words)}")
    return word


def _size(text: str, value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value)
    if not found or "0" in (found[1], found[2]):
        raise _error(text, f"size is 224, or height x width as 192x256, not {value!r}")
    return int(found[1]), int(found[2] or found[1])


def _number(text: str, key: str, value: str) -> float:
    above, is_share, below = value.partition("/")
    try:
        number = float(above) / float(below) if is_share else float(above)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number):
        raise _error(text, f"{key} is a number, or a share as 1/255, not {value!r}")
    return number


def _nonzero(text: str, key: str, value: str) -> float:
    number = _number(text, key, value)
    if not number:
        raise _error(text, f"{key} cannot be 0")
    return number


def _error(text: str, reason: str) -> ConfigError:
    return ConfigError(f"preprocessing {text!r}: {reason}")

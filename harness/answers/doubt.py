"""Figures that look like a misunderstanding rather than like a bad model: what it may be, and the remedy.

A model that is asked in the wrong way answers at chance, and one whose classes are counted otherwise becomes
right when they are shifted. Neither changes a verdict: the answers are what they are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.models.own_recipes import describe
from harness.models.spec import Variant

_MUCH_BETTER = 2.0
"""So many times as much is right in the right reading, where nobody has asked for another."""
ANY_GAIN = 1.0
"""The same of a file of the user's own, who may have said the wrong reading: any gain that is no chance."""
_LEAST_GAIN = 0.05
"""As a share: a shift by one is right by chance, or since neighbours look alike, for far fewer samples."""
_LEAST_GAINED = 2
"""Samples."""
_LEAST_SAMPLES = 3
"""With fewer, a good model may well be right as seldom as by guessing."""
_ABOVE_CHANCE = 1.64
"""Such deviations that a share of right answers has to be above it, if there could be as many: chance reaches
them once in twenty times."""
_CLEAR = 2.4
"""Standard deviations beyond what chance makes right, which it does not reach once in a hundred times; three
samples of three labels, all of them right, are 2.45."""


def is_much_better(
    value: float, than: float, times: float = _MUCH_BETTER, least_gain: float = _LEAST_GAIN
) -> bool:
    """Whether another reading of the same answers, which scores 0 to 1, must be the right one."""
    return value - than >= least_gain and value >= times * than


def _is_no_chance(shifted: npt.NDArray[np.int64], true: npt.NDArray[np.int64], share: float) -> bool:
    """Whether shifted answers are right far more often than the same ones in any order.

    Where a model answers one class to everything, some shift may well be the commonest label; in any order it
    is right as often.
    """
    samples, right = len(true), int((shifted == true).sum())
    chance, spread = _by_chance(shifted, true)
    return right - share * samples >= _LEAST_GAINED and right - chance > _CLEAR * spread


def _by_chance(answered: npt.NDArray[np.int64], true: npt.NDArray[np.int64]) -> tuple[float, float]:
    """How many of the same answers in any order are right, and the standard deviation of that."""
    labels, counts = np.unique(true, return_counts=True)
    chance = float(
        sum(count * (answered == label).mean() for label, count in zip(labels, counts, strict=True))
    )
    return chance, math.sqrt(max(0.0, chance * (1 - chance / len(true))))


def _is_at_chance(answered: npt.NDArray[np.int64], true: npt.NDArray[np.int64]) -> bool:
    """Whether as many would be right in any order, where there are enough samples to tell."""
    chance, spread = _by_chance(answered, true)
    right = int((answered == true).sum())
    return right - chance <= _ABOVE_CHANCE * spread and len(true) - chance > _CLEAR * spread


def of_classes(
    payloads: Mapping[int, bytes], labels: Sequence[int], variant: Variant, *, is_own_file: bool
) -> tuple[str, ...]:
    """Doubts about a classifier's accuracy against the labels of a data set.

    Args:
        payloads: logged bytes by sample index: one float32 label each, of every sample.
        labels: true label by sample index.
        variant: how the model was asked, and its answers read.
        is_own_file: whether the user can say otherwise.
    """
    answered = np.frombuffer(b"".join(payloads[index] for index in range(len(labels))), "<f4")
    return tuple(_of_classes(answered.astype(np.int64), np.asarray(labels), variant, is_own_file))


def _of_classes(
    answered: npt.NDArray[np.int64], true: npt.NDArray[np.int64], variant: Variant, is_own_file: bool
) -> Iterator[str]:
    share = float((answered == true).mean())
    times = ANY_GAIN if is_own_file else _MUCH_BETTER
    for shift in (-1, 1):
        shifted = float((answered + shift == true).mean())
        if is_much_better(shifted, share, times) and _is_no_chance(answered + shift, true, share):
            option = f"give --label-offset {variant.label_offset + shift}, or " if is_own_file else ""
            yield (
                f"with every answer one {'higher' if shift > 0 else 'lower'} {shifted:.2%} would be right "
                f"instead of {share:.2%}: {option}correct the labels of the data set"
            )
            return
    classes = len(np.unique(true))
    if len(true) < _LEAST_SAMPLES:
        return
    if share == 0 or (classes > 1 and (share <= 1 / classes or _is_at_chance(answered, true))):
        remedy = "--preprocess names another, --label-offset shifts labels" if is_own_file else "check both"
        yield (
            f"{share:.2%} is no better than guessing among the {classes} labels of the data set; the model "
            f"was asked with {describe(variant.preprocess)}: {remedy}"
        )

"""A few stored inputs before anything is timed: is the model on the server the one that was verified?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.answers.agreement import compare
from harness.answers.payloads import Tensors, decode, split
from harness.answers.precision import (
    BOX_TOLERANCE,
    GOLDEN_BOXES,
    GOLDEN_SHARE,
    GPU_SHARE,
    MARGIN,
    QUANTUM,
    allowed_difference,
    is_near_best,
    largest_difference,
    shortfall,
)
from harness.errors import InferenceError, RequestFailed
from harness.models import manifest
from harness.models.spec import TensorSpec, Variant
from harness.run.worker.job import SelfTest
from harness.run.worker.qsl import MessageStore
from harness.triton.client import TritonClient
from harness.triton.messages import ResponseReader

_GOLDEN_TOLERANCE = 1e-2
"""On scores and corners of boxes; generous, since a GPU may compute in TF32."""
_GOLDEN_AGREEMENT = 0.9
"""Share of detections that the server and the source must both find; generous for the same reason."""


def self_test(
    client: TritonClient,
    entry: str,
    variant: Variant,
    golden: Path,
    *,
    is_exact: bool,
    tolerance: float | None = None,
) -> SelfTest:
    """Compare the live server with what the source framework answered to a few fixed inputs.

    Where `is_exact` and there is no `tolerance`, answers must be equal but for rounding; else as
    `harness.answers.precision` says, with the tolerance instead of its margin and its tolerance of boxes.

    Raises:
        InferenceError: it answers nothing, or something else: other weights, a broken backend, a wrong
            configuration.
    """
    with np.load(golden) as stored:
        expected = dict(stored)
    inputs = expected["input"]
    store = MessageStore(entry, variant, 1)
    store.fill(inputs, range(len(inputs)))
    reader = ResponseReader(variant.requested_outputs)
    try:
        answers = [reader.read(client.infer_now(store.request(row, 1)), 1) for row in range(len(inputs))]
    except RequestFailed as error:
        # One whose stub has died stays loaded, and ready by its own account.
        is_dead = "not healthy" in str(error)
        advice = "; see the server's log, and load the model again or restart it" if is_dead else ""
        raise InferenceError(f"{entry} on {client.url} cannot answer: {error}{advice}") from error
    if variant.detection:
        found, wrong = _compare_detections(variant, answers, expected, is_exact, tolerance)
    else:
        found = _compare_classes(variant, answers, expected)
        if is_exact and tolerance is None:
            worst = _farthest(variant, answers, expected)
            wrong = "" if worst.is_within else str(worst)
            found = replace(found, difference=worst.difference, tolerance=worst.allowed)
        else:
            margin = tolerance or MARGIN
            wrong = _winners_differ(variant, answers, expected, margin)
            found = replace(found, tolerance=margin if found.shortfall is not None else None)
    if wrong:
        raise InferenceError(
            f"{entry} on {client.url} is not the verified model: {wrong} on the stored inputs; convert "
            "it again, or check the server's model repository (a model in fp16 or int8 needs --tolerance)"
        )
    return found


def _compare_classes(variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any]) -> SelfTest:
    """How near a classifier's answers are."""
    shares, shortfalls = [], []
    for position, spec in enumerate(variant.requested_outputs):
        wanted = expected[f"output:{spec.name}"].reshape(len(answers), -1)
        found = np.concatenate([tensors[position].reshape(1, -1) for tensors in answers])
        is_same = found.argmax(axis=1) == wanted.argmax(axis=1) if spec.is_scores else found == wanted
        shares.append(float(is_same.mean()))
        if spec.is_scores:
            shortfalls.append(float(shortfall(wanted)[np.arange(len(wanted)), found.argmax(axis=1)].max()))
    return SelfTest(len(answers), min(shares), max(shortfalls, default=None))


@dataclass(frozen=True)
class _Distance:
    """How far one output of one stored input is from the source framework's."""

    name: str
    difference: float
    allowed: float
    is_same_class: bool

    @property
    def is_within(self) -> bool:
        # Written so that a NaN is not.
        return self.difference <= self.allowed and self.is_same_class

    def __str__(self) -> str:
        return (
            f"output {self.name} differs from the source framework by up to {self.difference:.3g} "
            f"(allowed: {self.allowed:.3g})"
        )


def _farthest(variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any]) -> _Distance:
    """Of a classifier's answers the one that is beyond what is allowed, or nearest to it."""
    distances = [
        _distance(spec, answer, expected[f"output:{spec.name}"][row])
        for row, tensors in enumerate(answers)
        for spec, answer in zip(variant.requested_outputs, tensors, strict=True)
    ]
    return max(distances, key=lambda one: (not one.is_within, one.difference / (one.allowed or 1.0)))


def _distance(spec: TensorSpec, answer: Any, wanted: Any) -> _Distance:
    found = answer.reshape(wanted.shape)
    difference = largest_difference(found, wanted)
    if np.issubdtype(wanted.dtype, np.floating):
        allowed = allowed_difference(wanted, GPU_SHARE)
        is_same_class = found.argmax() == wanted.argmax()
    else:
        allowed = QUANTUM if spec.is_scores else 0.0
        # Of two winners that rounding made equal, or unequal, either is as good.
        is_same_class = wanted.max() - wanted.ravel()[found.argmax()] <= allowed
    return _Distance(spec.name, difference, allowed, bool(is_same_class))


def _winners_differ(
    variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any], margin: float
) -> str:
    """What is wrong with the answers of a classifier that calculates in fewer bits, or nothing."""
    for position, spec in enumerate(variant.requested_outputs):
        wanted = expected[f"output:{spec.name}"].reshape(len(answers), -1)
        found = np.concatenate([tensors[position].reshape(1, -1) for tensors in answers])
        if spec.is_scores:
            is_same = is_near_best(wanted, margin)[np.arange(len(wanted)), found.argmax(axis=1)]
            needed = 1.0
        else:
            is_same, needed = found[:, 0] == wanted[:, 0], GOLDEN_SHARE
        if is_same.mean() < needed:
            return (
                f"output {spec.name} has another winner than the source framework's {(~is_same).sum()} times"
            )
    return ""


def _compare_detections(
    variant: Variant,
    answers: Sequence[Tensors],
    expected: dict[str, Any],
    is_exact: bool,
    tolerance: float | None,
) -> tuple[SelfTest, str]:
    """How near a detector's answers are, and what is wrong with them, or nothing."""
    found = [records for row, tensors in enumerate(answers) for records in decode(variant, tensors, [row])]
    allowed, needed = (_GOLDEN_TOLERANCE, _GOLDEN_AGREEMENT) if is_exact else (BOX_TOLERANCE, GOLDEN_BOXES)
    if tolerance is not None:
        allowed, needed = tolerance, GOLDEN_BOXES
    share = compare(split(expected[manifest.GOLDEN_DETECTIONS], len(answers)), found, allowed).share
    wrong = "" if share >= needed else f"only {share:.1%} of its boxes are those of the source framework"
    return SelfTest(len(answers), share, tolerance=allowed), wrong

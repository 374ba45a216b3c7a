"""A few stored inputs before anything is timed: is the model on the server the one that was verified?"""

from collections.abc import Sequence
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
    allowed_difference,
    is_near_best,
)
from harness.errors import InferenceError
from harness.models import manifest
from harness.models.spec import Variant
from harness.run.worker.qsl import MessageStore
from harness.triton.client import TritonClient
from harness.triton.messages import ResponseReader

_GOLDEN_TOLERANCE = 1e-2
"""On scores and corners of boxes; generous, since a GPU may compute in TF32."""
_GOLDEN_AGREEMENT = 0.9
"""Share of detections that the server and the source must both find; generous for the same reason."""


def self_test(client: TritonClient, entry: str, variant: Variant, golden: Path, is_exact: bool) -> None:
    """Compare the live server with what the source framework answered to a few fixed inputs.

    Where `is_exact`, answers must be equal but for rounding; else as `harness.answers.precision` says.

    Raises:
        InferenceError: it answers something else: other weights, a broken backend, a wrong configuration.
    """
    with np.load(golden) as stored:
        expected = dict(stored)
    inputs = expected["input"]
    store = MessageStore(entry, variant, 1)
    store.fill(inputs, range(len(inputs)))
    reader = ResponseReader(variant.requested_outputs)
    answers = [reader.read(client.infer_now(store.request(row, 1)), 1) for row in range(len(inputs))]
    if variant.detection:
        difference = _detections_differ(variant, answers, expected, is_exact)
    else:
        difference = (_outputs_differ if is_exact else _winners_differ)(variant, answers, expected)
    if difference:
        raise InferenceError(
            f"{entry} on this server is not the verified model: {difference} on the stored inputs; convert "
            "it again, or check the server's model repository"
        )


def _outputs_differ(variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any]) -> str:
    """What is wrong with a classifier's answers, or nothing."""
    for row, tensors in enumerate(answers):
        for spec, answer in zip(variant.requested_outputs, tensors, strict=True):
            wanted = expected[f"output:{spec.name}"][row]
            found = answer.reshape(wanted.shape)
            difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
            allowed = 0.0
            if np.issubdtype(wanted.dtype, np.floating):
                allowed = allowed_difference(wanted, GPU_SHARE)
            if difference > allowed or found.argmax() != wanted.argmax():
                return (
                    f"output {spec.name} differs from the source framework by up to {difference:.3g} "
                    f"(allowed: {allowed:.3g})"
                )
    return ""


def _winners_differ(variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any]) -> str:
    """What is wrong with the answers of a classifier that calculates in fewer bits, or nothing."""
    for position, spec in enumerate(variant.requested_outputs):
        wanted = expected[f"output:{spec.name}"].reshape(len(answers), -1)
        found = np.concatenate([tensors[position].reshape(1, -1) for tensors in answers])
        if spec.is_scores:
            is_same = is_near_best(wanted)[np.arange(len(wanted)), found.argmax(axis=1)]
            needed = 1.0
        else:
            is_same, needed = found[:, 0] == wanted[:, 0], GOLDEN_SHARE
        if is_same.mean() < needed:
            return (
                f"output {spec.name} has another winner than the source framework's {(~is_same).sum()} times"
            )
    return ""


def _detections_differ(
    variant: Variant, answers: Sequence[Tensors], expected: dict[str, Any], is_exact: bool
) -> str:
    """What is wrong with a detector's answers, or nothing."""
    found = [records for row, tensors in enumerate(answers) for records in decode(variant, tensors, [row])]
    tolerance, needed = (_GOLDEN_TOLERANCE, _GOLDEN_AGREEMENT) if is_exact else (BOX_TOLERANCE, GOLDEN_BOXES)
    agreement = compare(split(expected[manifest.GOLDEN_DETECTIONS], len(answers)), found, tolerance)
    if agreement.share >= needed:
        return ""
    return f"only {agreement.share:.1%} of its boxes are those of the source framework"

"""The README's table of models, from the specs: `python -m harness.models.table`."""

import sys
from collections.abc import Iterator

from harness.models import MODELS
from harness.models.spec import ModelSpec, Variant

_HEADINGS = ("Model", "Platform", "Input", "Preprocessing (`--dataset`)", "Batch", "Target")


def markdown() -> str:
    """One row per model and platform."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS)]
    rows += [row for spec in MODELS.values() for row in _rows(spec)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(spec: ModelSpec) -> Iterator[tuple[str, ...]]:
    for variant in spec.variants.values():
        target = spec.target
        yield (
            f"{spec.title} (`{spec.name}`)",
            f"`{variant.platform}`",
            _input(variant),
            f"`{variant.preprocess.name}`",
            str(variant.batch_limit),
            f"{target.metric} {target.threshold:.2%} ({target.factor:.0%} of {target.reference:.2%})",
        )


def _input(variant: Variant) -> str:
    shape = "x".join(str(size) for size in variant.input.shape)
    return f"`{variant.input.name}` {variant.input.dtype} {shape}"


if __name__ == "__main__":
    sys.stdout.write(markdown())

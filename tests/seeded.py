"""Seeded weights where the project keeps them: made once, for all tests, all workers and all runs."""

from pathlib import Path

from converters.conversion import weights
from harness.models import MODELS


def seeded_file(model: str, source: str) -> Path:
    """The seeded weights of one of a model's sources, made unless they are there and have their digest."""
    spec = MODELS[model]
    variant = next(variant for variant in spec.variants.values() if variant.source == source)
    return weights.seeded(spec, variant).path

"""Which pairs of a model and a platform are converted and served for every change; the nightly run has all.

Every platform has the model that costs least, and every model the platforms that cost it least.
"""

from collections.abc import Mapping

import pytest

from harness.models import MODELS
from harness.models.platforms import Platform

FOR_EVERY_CHANGE: Mapping[str, tuple[Platform, ...]] = {
    "resnet50": (Platform.ONNXRUNTIME, Platform.OPENVINO),
    "mobilenet": tuple(MODELS["mobilenet"].variants),
    "ssd-mobilenet": tuple(MODELS["ssd-mobilenet"].variants),
    "ssd-resnet34": (Platform.ONNXRUNTIME,),
}

WHOLE = [model for model, spec in MODELS.items() if set(spec.variants) == set(FOR_EVERY_CHANGE[model])]
"""Models that are converted to all of their platforms."""

PAIRS = [
    pytest.param(model, platform, marks=() if platform in FOR_EVERY_CHANGE[model] else pytest.mark.nightly)
    for model, spec in MODELS.items()
    for platform in spec.variants
]

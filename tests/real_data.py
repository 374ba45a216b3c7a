"""The folder of real weights and photographs, which lies beside the checkout and is no part of it."""

import os
from pathlib import Path

import pytest

from harness.machine.paths import PROJECT_ROOT

REAL_DATA = Path(os.environ.get("REAL_DATA") or PROJECT_ROOT.parent / "shared" / "data")
WEIGHTS = REAL_DATA / "models"
PHOTOGRAPHS = REAL_DATA / "imagenet"
"""With their labels, val_map.txt."""
COCO = REAL_DATA / "coco"
COCO_ANNOTATIONS = COCO / "annotations" / "instances_val2017.json"

needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason=f"no real weights and photographs in {REAL_DATA} ($REAL_DATA names others)"
)

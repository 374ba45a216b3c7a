"""A harness as `pip install .` lays it out, in an environment that has none of the frameworks.

The interpreter is the tests' own; what a small client lacks cannot be imported there.
"""

import os
import shutil
from pathlib import Path

from harness.machine.paths import PROJECT_ROOT

LACKS = (
    *("cv2", "tensorflow", "torch", "onnx", "onnxruntime", "openvino", "tf2onnx", "ai_edge_litert"),
    *("flatbuffers", "pytriton", "yaml", "psutil", "hypothesis", "h2"),
)
_HOOK = """
import sys
from importlib.machinery import PathFinder
class Lacking(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {lacks} else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking
"""


def install(site: Path) -> dict[str, str]:
    """Lay the packages out in a folder; returns the environment in which a small client runs."""
    for package in ("harness", "converters"):
        shutil.copytree(PROJECT_ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "model_repository").mkdir()
    (site / "sitecustomize.py").write_text(_HOOK.format(lacks=set(LACKS)))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MODEL_DIR", "DATA_DIR", "TRITON_URL")
    }
    return {**kept, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

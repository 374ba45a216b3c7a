"""Triton's `openvino` backend: see ov_model.py."""

import sys
from pathlib import Path

_BACKENDS = str(Path(__file__).resolve().parent.parent)
sys.path.append(_BACKENDS)
import batching  # noqa: E402 - found beside this folder, also where that is a mount

# Left there, our folders could be taken for the packages of the same names.
sys.path.remove(_BACKENDS)


class TritonPythonModel(batching.Backend):
    """The class that Triton looks for."""

    framework = "ov_model"

"""What may be missing where only the small client is installed, and how it is had."""

import importlib.util
from collections.abc import Iterable

_EXTRAS = {
    "cv2": "opencv",
    "tensorflow": "tensorflow",
    "torch": "pytorch",
    "ai_edge_litert": "tflite",
    "flatbuffers": "tflite",
    "openvino": "openvino",
    "pytriton": "server",
    **dict.fromkeys(("onnx", "onnxruntime", "tf2onnx"), "onnxruntime"),
}
"""By the module: the extra of pyproject.toml that installs it."""


def lacking(packages: Iterable[str]) -> list[str]:
    """Those that are not installed here, as in the small client."""
    return [name for name in packages if importlib.util.find_spec(name.replace("-", "_")) is None]


def how_to_install(module: str, extra: str = "") -> str:
    """What to do where something is not installed.

    Args:
        module: its name, or that of a part of it.
        extra: of pyproject.toml; by default the one that has it.
    """
    module = module.partition(".")[0]
    extra = extra or _EXTRAS.get(module, "")
    # Not by the package's name: no index has it.
    what = f"'.[{extra}]'" if extra else "."
    return (
        f"{module} is not installed; in this project's folder: pip install {what}, or ./run.sh setup for all"
    )

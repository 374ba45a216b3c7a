"""Seeded weights as files in the form of the published ones; each framework is imported when it is needed."""

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import ConfigError


def build(model: str, source: str, target: Path) -> None:
    """Write the seeded weights of one of a model's sources.

    Raises:
        ConfigError: none are made for it.
    """
    if (model, source) not in _BUILDERS:
        raise ConfigError(f"there are no seeded weights for {model} ({source})")
    _BUILDERS[model, source](target)


def _resnet50_tensorflow(target: Path) -> None:
    from converters.networks.seeds import seed_resnet50
    from converters.networks.tensorflow import build_resnet50

    build_resnet50(seed_resnet50(), target)


def _resnet50_pytorch(target: Path) -> None:
    from converters.networks.seeds import seed_resnet50
    from converters.networks.torch import build_resnet50

    build_resnet50(seed_resnet50(), target)


def _mobilenet_tensorflow(target: Path) -> None:
    from converters.networks.seeds import seed_mobilenet
    from converters.networks.tensorflow import build_mobilenet

    build_mobilenet(seed_mobilenet(), target)


def _ssd_mobilenet_tensorflow(target: Path) -> None:
    from converters.networks.ssd_mobilenet.seeds import seed_ssd_mobilenet
    from converters.networks.ssd_mobilenet.tensorflow import build_ssd_mobilenet

    build_ssd_mobilenet(seed_ssd_mobilenet(), target)


def _ssd_resnet34_onnx(target: Path) -> None:
    from converters.networks.ssd_resnet34.onnx import build_ssd_resnet34
    from converters.networks.ssd_resnet34.seeds import seed_ssd_resnet34

    build_ssd_resnet34(seed_ssd_resnet34(), target)


_BUILDERS: Mapping[tuple[str, str], Callable[[Path], None]] = {
    ("resnet50", "tensorflow"): _resnet50_tensorflow,
    ("resnet50", "pytorch"): _resnet50_pytorch,
    ("mobilenet", "tensorflow"): _mobilenet_tensorflow,
    ("ssd-mobilenet", "tensorflow"): _ssd_mobilenet_tensorflow,
    ("ssd-resnet34", "onnx"): _ssd_resnet34_onnx,
}

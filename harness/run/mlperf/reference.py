"""The MLPerf reference's own words: profiles, backends, and the names of its models' files.

Source: SUPPORTED_PROFILES and the run scripts of mlcommons/inference, vision/classification_and_detection.
Tensor names, layout and batch limit of a profile are on the model's declaration (`harness.models`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from harness.errors import ConfigError
from harness.machine import paths
from harness.models import MODELS, get_platform
from harness.models.platforms import BY_ENDING, Platform, ending_of
from harness.models.spec import ModelSpec


@dataclass(frozen=True)
class Profile:
    """What a profile sets where nothing else is given."""

    platform: Platform
    model: str = ""
    dataset: str = ""
    """Preprocessing of the images in --dataset-path."""


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        # The reference's data set is imagenet here, whatever the model; ours is the model's.
        "defaults": Profile(Platform.TENSORFLOW),
        "resnet50-tf": Profile(Platform.TENSORFLOW, "resnet50", "imagenet"),
        "resnet50-onnxruntime": Profile(Platform.ONNXRUNTIME, "resnet50", "imagenet"),
        "resnet50-pytorch": Profile(Platform.PYTORCH, "resnet50", "imagenet_pytorch"),
        "mobilenet-tf": Profile(Platform.TENSORFLOW, "mobilenet", "imagenet_mobilenet"),
        "mobilenet-onnxruntime": Profile(Platform.ONNXRUNTIME, "mobilenet", "imagenet_mobilenet"),
        "ssd-mobilenet-tf": Profile(Platform.TENSORFLOW, "ssd-mobilenet", "coco-300"),
        "ssd-mobilenet-onnxruntime": Profile(Platform.ONNXRUNTIME, "ssd-mobilenet", "coco-300"),
        "ssd-resnet34-tf": Profile(Platform.TENSORFLOW, "ssd-resnet34", "coco-1200-tf"),
        "ssd-resnet34-pytorch": Profile(Platform.PYTORCH, "ssd-resnet34", "coco-1200-pt"),
        "ssd-resnet34-onnxruntime": Profile(Platform.ONNXRUNTIME, "ssd-resnet34", "coco-1200-onnx"),
    }
)

_BACKENDS = {
    "tf": Platform.TENSORFLOW,
    # A pickled module there; the same model as TorchScript here.
    "pytorch-native": Platform.PYTORCH,
}
_NOT_SERVED = {
    "null": "it is no server's: ./run.sh limits --null-only measures the harness without a model",
    "tvm": "Triton does not serve it",
    "ncnn": "Triton does not serve it",
}

_MODEL_OF_FILE = {
    "resnet50": "resnet50",
    "mobilenet_v1": "mobilenet",
    "ssd_mobilenet": "ssd-mobilenet",
    "resnet34-ssd": "ssd-resnet34",
    "ssd_resnet": "ssd-resnet34",
}
"""By how the names of the reference's files begin."""

PLATFORM_OF_SUFFIX: Mapping[str, Platform] = MappingProxyType(
    # The last is how the reference's own PyTorch files end.
    {**BY_ENDING, ".pytorch": Platform.PYTORCH}
)


def platform_of(word: str) -> Platform:
    """The platform of our word for it, or of the reference's.

    Raises:
        ConfigError: no such platform, or one that Triton does not serve.
    """
    if word in _NOT_SERVED:
        raise ConfigError(f"backend {word}: {_NOT_SERVED[word]}; platforms: {', '.join(Platform)}")
    return _BACKENDS.get(word) or get_platform(word)


def is_model_file(word: str) -> bool:
    """Whether --model names a file, and no model."""
    if any(word in (spec.name, *spec.aliases) for spec in MODELS.values()):
        return False
    path = Path(word)
    return ending_of(path) in PLATFORM_OF_SUFFIX or len(path.parts) > 1 or path.is_file()


def model_of_file(path: Path) -> str:
    """Which model a file is, going by its name; empty where the reference has none of that kind."""
    return next((model for start, model in _MODEL_OF_FILE.items() if path.name.startswith(start)), "")


def is_published(path: Path, spec: ModelSpec, platform: Platform) -> bool:
    """Whether a path is where the published weights that the platform's entry is made from are kept."""
    variant = spec.variants.get(platform)
    return variant is not None and path == paths.weights_dir() / spec.sources[variant.source].filename

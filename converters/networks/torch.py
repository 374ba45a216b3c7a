"""The networks as PyTorch modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from converters.formats.graph import Graph
from converters.formats.torch import describe_module, read_state_dict, save_script
from converters.networks.architectures import RESNET50_EPSILON, RESNET50_STAGES
from converters.networks.chain import Activation, Chain, Convolution
from converters.networks.seeds import CLASSIFIER, Arrays
from harness.errors import ConversionError
from harness.models.recipes import IMAGENET_PYTORCH
from harness.models.spec import TensorSpec


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride: v1.5), 1x1 and a shortcut; attribute names are torchvision's."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        """Take the number of input channels, the width of the inner layers and the stride."""
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=RESNET50_EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=RESNET50_EPSILON)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=RESNET50_EPSILON)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs, eps=RESNET50_EPSILON),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """ResNet-50 v1.5 whose state dict has the keys of torchvision's."""

    def __init__(self, classes: int) -> None:
        """Build it without weights of use."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=RESNET50_EPSILON)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs, stages = 64, []
        for width, blocks, stride in RESNET50_STAGES:
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inputs, width, stride if block == 0 else 1))
                inputs = width * Bottleneck.expansion
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) normalised RGB -> (n, classes) logits."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def build_chain(chain: Chain) -> nn.Module:
    """A network without branches: (n, 3, h, w) -> (n, classes)."""
    layers: list[nn.Module] = []
    for convolution in chain.body:
        layers += _convolution(convolution)
    classifier = nn.Linear(chain.classifier.shape[0], chain.classifier.shape[1])
    classifier.load_state_dict({"weight": _tensor(chain.classifier.T), "bias": _tensor(chain.bias)})
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier]
    if chain.ends_in_softmax:
        layers.append(nn.Softmax(dim=1))
    return nn.Sequential(*layers)


def _convolution(source: Convolution) -> list[nn.Module]:
    """Padding (a layer of its own where it is lopsided), convolution, activation."""
    (top, bottom), (left, right) = source.rows, source.columns
    is_even = top == bottom and left == right
    channels = source.weights.shape[2] if source.is_depthwise else source.weights.shape[3]
    convolution = nn.Conv2d(
        source.weights.shape[2],
        channels,
        (source.weights.shape[0], source.weights.shape[1]),
        source.stride,
        padding=(top, left) if is_even else 0,
        groups=channels if source.is_depthwise else 1,
    )
    # (h, w, in, out) -> (out, in, h, w); depthwise: (h, w, channels, 1) -> (channels, 1, h, w).
    axes = (2, 3, 0, 1) if source.is_depthwise else (3, 2, 0, 1)
    convolution.load_state_dict(
        {"weight": _tensor(source.weights.transpose(axes)), "bias": _tensor(source.bias)}
    )
    layers: list[nn.Module] = [] if is_even else [nn.ZeroPad2d((left, right, top, bottom))]
    layers.append(convolution)
    if source.activation != Activation.NONE:
        layers.append(nn.ReLU() if source.activation == Activation.RELU else nn.ReLU6())
    return layers


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.copy())


@contextmanager
def open_state_dict(path: Path, expected: TensorSpec) -> Iterator[Graph]:
    """Open ResNet-50's state dict as the eager module that it belongs to."""
    yield describe_module(path, _load_resnet50(path), expected)


def export_state_dict(source: Path, target: Path) -> None:
    """Write ResNet-50's state dict as TorchScript."""
    save_script(_load_resnet50(source), target)


def export_chain(chain: Chain, target: Path) -> None:
    """Write a network without branches as TorchScript."""
    save_script(build_chain(chain).eval(), target)


def build_resnet50(arrays: Arrays, target: Path) -> None:
    """Write seeded weights as the published state dict: torchvision's keys, classes and input scale."""
    state = {}
    for key, array in arrays.items():
        layer, _, part = key.rpartition("/")
        if layer != CLASSIFIER:
            axes = (3, 2, 0, 1) if part == "weights" else (0,)
            state[f"{layer}.{_TORCH_PARTS[part]}"] = torch.from_numpy(array.transpose(axes).copy())
    # From 0-255 to this input's (x / 255 - mean) / std: the means are TensorFlow's, the scale moves to conv1.
    _, _, deviation = IMAGENET_PYTORCH.steps
    scale = 255 * torch.tensor(deviation.values).reshape(1, 3, 1, 1)
    state["conv1.weight"] = (state["conv1.weight"] * scale).contiguous()
    # Class 0 is the background, which PyTorch's models don't have.
    state["fc.weight"] = torch.from_numpy(arrays[f"{CLASSIFIER}/weights"][:, 1:].T.copy())
    state["fc.bias"] = torch.from_numpy(arrays[f"{CLASSIFIER}/bias"][1:].copy())
    with target.open("wb") as stream:
        torch.save(state, stream)


_TORCH_PARTS = {
    "weights": "weight",
    "gamma": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def _load_resnet50(path: Path) -> nn.Module:
    """ResNet-50 with a state dict's weights, and as many classes as that has."""
    state = read_state_dict(path)
    bias = state.get("fc.bias")
    module = ResNet50(1000 if bias is None else bias.numel())
    expected = module.state_dict()
    # Counted while training only, and not by old versions.
    needed = {key for key in expected if not key.endswith("num_batches_tracked")}
    missing, unknown = sorted(needed - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        wrong = [f"{word} {_listed(keys)}" for word, keys in (("lacks", missing), ("has", unknown)) if keys]
        raise ConversionError(f"{path}: not the state dict of torchvision's resnet50: {' and '.join(wrong)}")
    if other := sorted(key for key in needed if state[key].shape != expected[key].shape):
        raise ConversionError(
            f"{path}: not the state dict of torchvision's resnet50: {other[0]} is "
            f"{list(state[other[0]].shape)}, not {list(expected[other[0]].shape)}"
        )
    module.load_state_dict(state, strict=False)
    return module.eval()


def _listed(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"

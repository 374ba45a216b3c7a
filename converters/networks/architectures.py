"""The bodies of the networks, said once, over any framework's tensors.

A caller brings the operations: numpy ones that make up weights as they go (`seeds`), or ones that
write a framework's nodes. What follows the body (pooling, classifier) differs by framework.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class Padding(StrEnum):
    """How a convolution treats the border."""

    SAME = "same"
    """TensorFlow's: just enough zeros, the odd one below and to the right."""
    FIXED = "fixed"
    """(kernel - 1) / 2 zeros on every side whatever the input, as PyTorch's `padding=`."""
    VALID = "valid"
    """None: the result is smaller than the input."""


def pad_widths(padding: Padding, size_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of `size_px`."""
    if padding == Padding.FIXED:
        return ((kernel - 1) // 2, kernel // 2)
    if padding == Padding.VALID:
        return (0, 0)
    total = max((-(-size_px // stride) - 1) * stride + kernel - size_px, 0)
    return (total // 2, total - total // 2)


@dataclass(frozen=True)
class Norm:
    """Batch normalisation with stored statistics."""

    name: str
    """Whose statistics."""
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One convolution, with the batch normalisation or the bias that follows it."""

    name: str
    """Whose weights."""
    inputs: int
    filters: int
    kernel: int
    stride: int = 1
    padding: Padding = Padding.FIXED
    norm: Norm | None = None
    """None: a bias."""
    is_depthwise: bool = False
    """Every channel by itself."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the weights, as ONNX and PyTorch order them: (out, in, h, w)."""
        return (self.filters, 1 if self.is_depthwise else self.inputs, self.kernel, self.kernel)

    @property
    def pad_px(self) -> int:
        """Zeros on every side, where the input's size has no say in it."""
        assert self.padding != Padding.SAME
        return (self.kernel - 1) // 2 if self.padding == Padding.FIXED else 0


class Operations(Protocol[T]):
    """What the networks are built from; tensors may have either axis order."""

    def conv(self, x: T, layer: Layer) -> T:
        """Convolve, then normalise or add the bias."""

    def relu(self, x: T, *, limit: float | None = None) -> T:
        """Clip below zero and above `limit`."""

    def add(self, x: T, y: T) -> T:
        """Sum of two tensors of one shape."""

    def max_pool(self, x: T, padding: Padding) -> T:
        """Largest of each 3x3, stride 2."""


RESNET50_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""(width, blocks, stride of the first block); arXiv:1512.03385, table 1."""

RESNET50_EPSILON = 1e-5

MOBILENET_POINTWISE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""(filters, stride of the depthwise before); arXiv:1704.04861, table 1."""

MOBILENET_EPSILON = 1e-3
"""TF-slim's mobilenet_v1; the paper gives none."""


def resnet50(ops: Operations[T], image: T) -> T:
    """ResNet-50 v1.5 up to its last feature map (h/32, w/32, 2048 channels); names as torchvision's."""
    x = ops.relu(ops.conv(image, _resnet50_layer("conv1", "bn1", 3, 64, 7, 2)))
    x, channels = ops.max_pool(x, Padding.SAME), 64
    for stage, (width, blocks, stride) in enumerate(RESNET50_STAGES, start=1):
        for block in range(blocks):
            x = _bottleneck(ops, x, f"layer{stage}.{block}.", channels, width, stride if block == 0 else 1)
            channels = 4 * width
    return x


def _bottleneck(ops: Operations[T], x: T, name: str, inputs: int, width: int, stride: int) -> T:
    """1x1, 3x3, 1x1 and a shortcut. v1.5: the stride is in the 3x3."""
    outputs, shortcut = 4 * width, x
    if inputs != outputs:
        layer = _resnet50_layer(f"{name}downsample.0", f"{name}downsample.1", inputs, outputs, 1, stride)
        shortcut = ops.conv(x, layer)
    x = ops.relu(ops.conv(x, _resnet50_layer(f"{name}conv1", f"{name}bn1", inputs, width, 1)))
    x = ops.relu(ops.conv(x, _resnet50_layer(f"{name}conv2", f"{name}bn2", width, width, 3, stride)))
    x = ops.conv(x, _resnet50_layer(f"{name}conv3", f"{name}bn3", width, outputs, 1))
    return ops.relu(ops.add(x, shortcut))


def _resnet50_layer(name: str, norm: str, inputs: int, filters: int, kernel: int, stride: int = 1) -> Layer:
    return Layer(name, inputs, filters, kernel, stride, norm=Norm(norm, RESNET50_EPSILON))


SSD_MOBILENET_TAPPED = (11, 13)
"""The layers whose features the two lowest predictors read: TF Object Detection API, ssd_mobilenet_v1."""

SSD_MOBILENET_EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))
"""(1x1 filters, 3x3 filters) of each further layer; the 3x3 halves the feature map."""


def mobilenet(ops: Operations[T], image: T) -> T:
    """MobileNet-v1 1.0 up to its last feature map (h/32, w/32, 1024 channels); names as TF-slim's."""
    return _mobilenet(ops, image, (len(MOBILENET_POINTWISE),))[0]


def ssd_mobilenet(ops: Operations[T], image: T) -> list[T]:
    """The feature maps that SSD-MobileNet-v1 predicts from, lowest layer first; names as the published ones.

    Returns:
        Of a 300x300 image: 19x19 positions with 512 channels, 10x10 with 1024, 5x5 with 512, 3x3 with 256,
        2x2 with 256, one with 128.
    """
    features = _mobilenet(ops, image, SSD_MOBILENET_TAPPED)
    channels = MOBILENET_POINTWISE[-1][0]
    for index, (narrow, filters) in enumerate(SSD_MOBILENET_EXTRA, start=2):
        name = f"Conv2d_13_pointwise_1_Conv2d_{index}_1x1_{narrow}"
        x = _mobilenet_conv(ops, features[-1], name, channels, narrow, 1)
        name = f"Conv2d_13_pointwise_2_Conv2d_{index}_3x3_s2_{filters}"
        features.append(_mobilenet_conv(ops, x, name, narrow, filters, 3, 2))
        channels = filters
    return features


def _mobilenet(ops: Operations[T], image: T, tapped: tuple[int, ...]) -> list[T]:
    """The features after each of the `tapped` layers, counted from 1."""
    features = []
    x, channels = _mobilenet_conv(ops, image, "Conv2d_0", 3, 32, 3, 2), 32
    for index, (filters, stride) in enumerate(MOBILENET_POINTWISE, start=1):
        name = f"Conv2d_{index}_depthwise"
        x = _mobilenet_conv(ops, x, name, channels, channels, 3, stride, is_depthwise=True)
        x = _mobilenet_conv(ops, x, f"Conv2d_{index}_pointwise", channels, filters, 1)
        channels = filters
        if index in tapped:
            features.append(x)
    return features


def _mobilenet_conv(
    ops: Operations[T],
    x: T,
    name: str,
    inputs: int,
    filters: int,
    kernel: int,
    stride: int = 1,
    *,
    is_depthwise: bool = False,
) -> T:
    norm = Norm(name, MOBILENET_EPSILON)
    layer = Layer(name, inputs, filters, kernel, stride, Padding.SAME, norm, is_depthwise)
    return ops.relu(ops.conv(x, layer), limit=6.0)

"""The bodies of the networks, said once, over any framework's tensors.

A caller brings the operations: numpy ones that make up weights as they go (`seeds`), or ones that
write TensorFlow nodes. Tensors are NHWC. What follows the body (pooling, classifier) differs by framework.
"""

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


class Operations(Protocol[T]):
    """What the bodies are built from; `name` says whose weights they use."""

    def conv(self, x: T, name: str, *, filters: int, kernel: int, stride: int, padding: Padding) -> T:
        """Convolve, without a bias."""

    def depthwise(self, x: T, name: str, *, kernel: int, stride: int) -> T:
        """Convolve every channel by itself, SAME padding, without a bias."""

    def norm(self, x: T, name: str, *, epsilon: float) -> T:
        """Batch normalisation with stored statistics."""

    def relu(self, x: T, *, limit: float | None = None) -> T:
        """Clip below zero and above `limit`."""

    def add(self, x: T, y: T) -> T:
        """Sum of two tensors of one shape."""

    def max_pool(self, x: T) -> T:
        """Largest of each 3x3, stride 2, SAME padding."""


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
    """ResNet-50 v1.5 up to its last feature map (n, h/32, w/32, 2048); names as torchvision's state dict."""
    x = ops.conv(image, "conv1", filters=64, kernel=7, stride=2, padding=Padding.FIXED)
    x = ops.max_pool(ops.relu(ops.norm(x, "bn1", epsilon=RESNET50_EPSILON)))
    for stage, (width, blocks, stride) in enumerate(RESNET50_STAGES, start=1):
        for block in range(blocks):
            x = _bottleneck(ops, x, f"layer{stage}.{block}", width, stride if block == 0 else 1, block == 0)
    return x


def _bottleneck(ops: Operations[T], x: T, name: str, width: int, stride: int, is_first: bool) -> T:
    """1x1, 3x3, 1x1 and a shortcut. v1.5: the stride is in the 3x3."""
    shortcut = x
    if is_first:
        shortcut = _conv_norm(ops, x, name, "downsample.0", "downsample.1", 4 * width, 1, stride)
    x = ops.relu(_conv_norm(ops, x, name, "conv1", "bn1", width, 1, 1))
    x = ops.relu(_conv_norm(ops, x, name, "conv2", "bn2", width, 3, stride))
    x = _conv_norm(ops, x, name, "conv3", "bn3", 4 * width, 1, 1)
    return ops.relu(ops.add(x, shortcut))


def _conv_norm(
    ops: Operations[T], x: T, block: str, conv: str, norm: str, filters: int, kernel: int, stride: int
) -> T:
    x = ops.conv(x, f"{block}.{conv}", filters=filters, kernel=kernel, stride=stride, padding=Padding.FIXED)
    return ops.norm(x, f"{block}.{norm}", epsilon=RESNET50_EPSILON)


SSD_MOBILENET_TAPPED = (11, 13)
"""The layers whose features the two lowest predictors read: TF Object Detection API, ssd_mobilenet_v1."""

SSD_MOBILENET_EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))
"""(1x1 filters, 3x3 filters) of each further layer; the 3x3 halves the feature map."""


def mobilenet(ops: Operations[T], image: T) -> T:
    """MobileNet-v1 1.0 up to its last feature map (n, h/32, w/32, 1024); names as TF-slim's."""
    return _mobilenet(ops, image, (len(MOBILENET_POINTWISE),))[0]


def ssd_mobilenet(ops: Operations[T], image: T) -> list[T]:
    """The feature maps that SSD-MobileNet-v1 predicts from, lowest layer first; names as the published ones.

    Returns:
        Of a 300x300 image: (n, 19, 19, 512), (n, 10, 10, 1024), (n, 5, 5, 512), (n, 3, 3, 256),
        (n, 2, 2, 256), (n, 1, 1, 128).
    """
    features = _mobilenet(ops, image, SSD_MOBILENET_TAPPED)
    for index, (narrow, filters) in enumerate(SSD_MOBILENET_EXTRA, start=2):
        name = f"Conv2d_13_pointwise_1_Conv2d_{index}_1x1_{narrow}"
        x = _mobilenet_conv(ops, features[-1], name, filters=narrow, kernel=1, stride=1)
        name = f"Conv2d_13_pointwise_2_Conv2d_{index}_3x3_s2_{filters}"
        features.append(_mobilenet_conv(ops, x, name, filters=filters, kernel=3, stride=2))
    return features


def _mobilenet(ops: Operations[T], image: T, tapped: tuple[int, ...]) -> list[T]:
    """The features after each of the `tapped` layers, counted from 1."""
    features = []
    x = _mobilenet_conv(ops, image, "Conv2d_0", filters=32, kernel=3, stride=2)
    for index, (filters, stride) in enumerate(MOBILENET_POINTWISE, start=1):
        name = f"Conv2d_{index}_depthwise"
        x = ops.depthwise(x, name, kernel=3, stride=stride)
        x = ops.relu(ops.norm(x, name, epsilon=MOBILENET_EPSILON), limit=6.0)
        x = _mobilenet_conv(ops, x, f"Conv2d_{index}_pointwise", filters=filters, kernel=1, stride=1)
        if index in tapped:
            features.append(x)
    return features


def _mobilenet_conv(ops: Operations[T], x: T, name: str, *, filters: int, kernel: int, stride: int) -> T:
    x = ops.conv(x, name, filters=filters, kernel=kernel, stride=stride, padding=Padding.SAME)
    return ops.relu(ops.norm(x, name, epsilon=MOBILENET_EPSILON), limit=6.0)

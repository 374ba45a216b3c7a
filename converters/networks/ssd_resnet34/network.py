"""SSD-ResNet34's network up to its heads, said once, over any framework's tensors.

ResNet-34 up to its third stage, which keeps its size here, then five pairs of convolutions; on each of the
six feature maps a head for the boxes' locations and one for their classes. Architecture: MLCommons' inference
repository, vision/classification_and_detection/python/models/ssd_r34.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from converters.networks.architectures import Layer, Norm, Operations, Padding

T = TypeVar("T")

CLASSES = 81
"""Background and COCO's 80."""

COORDINATES = 4
"""Of a location: the centre's x and y, width, height."""

EPSILON = 1e-5
"""Of batch normalisation; PyTorch's default."""

ANCHORS = (4, 6, 6, 6, 4, 4)
"""Default boxes per cell of each feature map."""

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 1))
"""(width, blocks, stride of the first block); the published ResNet-34 has a stride of 2 in the last."""

_EXTRAS = (
    (256, 512, 2, Padding.FIXED),
    (256, 512, 2, Padding.FIXED),
    (128, 256, 2, Padding.FIXED),
    (128, 256, 2, Padding.VALID),
    (128, 256, 1, Padding.VALID),
)
"""(filters of the 1x1, then of the 3x3; the 3x3's stride and padding)."""

_MAP_CHANNELS = (_STAGES[-1][0], *(filters for _, filters, _, _ in _EXTRAS))
_HEAD_STRIDE = 3


HEADS = tuple(
    (
        Layer(f"loc.{index}", channels, anchors * COORDINATES, 3, _HEAD_STRIDE),
        Layer(f"conf.{index}", channels, anchors * CLASSES, 3, _HEAD_STRIDE),
    )
    for index, (channels, anchors) in enumerate(zip(_MAP_CHANNELS, ANCHORS, strict=True))
)
"""(locations, classes) by feature map. Output channel = number * anchors + anchor, the number being that of
the coordinate or the class: so (n, numbers * anchors, h, w) can be reshaped to (n, numbers, anchors * h * w).
"""


def features(ops: Operations[T], image: T) -> list[T]:
    """The six feature maps; an image of 1200 pixels gives 150, 75, 38, 19, 9 and 7."""
    x = ops.conv(image, _normalised("backbone.conv1", 3, 64, 7, 2))
    x, channels = ops.max_pool(ops.relu(x), Padding.FIXED), 64
    for stage, (width, blocks, stride) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            name = f"backbone.layer{stage}.{block}"
            x = _basic_block(ops, x, name, channels, width, stride if block == 0 else 1)
            channels = width
    maps = [x]
    for index, (inner, filters, stride, padding) in enumerate(_EXTRAS):
        x = ops.relu(ops.conv(x, Layer(f"extras.{index}.conv1", channels, inner, 1)))
        x = ops.relu(ops.conv(x, Layer(f"extras.{index}.conv2", inner, filters, 3, stride, padding)))
        maps.append(x)
        channels = filters
    return maps


def _basic_block(ops: Operations[T], x: T, name: str, inputs: int, width: int, stride: int) -> T:
    """Two 3x3 and a shortcut."""
    y = ops.relu(ops.conv(x, _normalised(f"{name}.conv1", inputs, width, 3, stride)))
    y = ops.conv(y, _normalised(f"{name}.conv2", width, width, 3))
    if inputs != width:
        x = ops.conv(x, _normalised(f"{name}.downsample", inputs, width, 1, stride))
    return ops.relu(ops.add(y, x))


def _normalised(name: str, inputs: int, filters: int, kernel: int, stride: int = 1) -> Layer:
    return Layer(name, inputs, filters, kernel, stride, norm=Norm(name, EPSILON))


def heads(ops: Operations[T], maps: Sequence[T]) -> list[tuple[T, T]]:
    """(locations, classes) by feature map, every third position of each."""
    return [
        (ops.conv(x, location), ops.conv(x, confidence))
        for x, (location, confidence) in zip(maps, HEADS, strict=True)
    ]


@dataclass
class _Recorder:
    """`Operations` on nothing, noting the layers."""

    layers: list[Layer] = field(default_factory=list)

    def conv(self, x: None, layer: Layer) -> None:
        self.layers.append(layer)

    def relu(self, x: None, *, limit: float | None = None) -> None:
        pass

    def add(self, x: None, y: None) -> None:
        pass

    def max_pool(self, x: None, padding: Padding) -> None:
        pass


def _record() -> tuple[Layer, ...]:
    recorder = _Recorder()
    heads(recorder, features(recorder, None))
    return tuple(recorder.layers)


LAYERS = _record()
"""All of them, in the order of execution."""

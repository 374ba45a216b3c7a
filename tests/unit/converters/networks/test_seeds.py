import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from converters.networks import architectures, seeds
from converters.networks.architectures import Norm, Padding, pad_widths


@dataclass
class _Counter:
    """Runs a body on shapes alone, counting what would be learned and multiplied."""

    parameters: int = 0
    multiplications: int = 0
    names: list[str] = field(default_factory=list)

    def conv(self, x, layer):
        assert x[2] == layer.inputs
        assert layer.norm
        self.names.append(layer.name)
        rows, columns = (
            (size + sum(pad_widths(layer.padding, size, layer.kernel, layer.stride)) - layer.kernel)
            // layer.stride
            + 1
            for size in x[:2]
        )
        weights = math.prod(layer.shape)
        self.parameters += weights + 2 * layer.filters
        self.multiplications += rows * columns * weights
        return (rows, columns, layer.filters)

    def relu(self, x, *, limit=None):
        return x

    def add(self, x, y):
        assert x == y
        return x

    def max_pool(self, x, padding):
        assert padding == Padding.SAME
        return (-(-x[0] // 2), -(-x[1] // 2), x[2])


def test_resnet50_has_the_published_size():
    counter = _Counter()
    assert architectures.resnet50(counter, (224, 224, 3)) == (7, 7, 2048)
    # torchvision's documentation of resnet50: 25,557,032 parameters, 4.09 GMAC; its classifier has 2,049,000.
    assert counter.parameters + 2_049_000 == 25_557_032
    assert round((counter.multiplications + 2048 * 1000) / 1e9, 2) == 4.09
    assert len(counter.names) == 53


def test_mobilenet_has_the_published_size():
    counter = _Counter()
    assert architectures.mobilenet(counter, (224, 224, 3)) == (7, 7, 1024)
    # The paper's table 8 says 4.2 million parameters and 569 million multiply-adds; TF-slim counts 4,231,976
    # with 1000 classes, 1,025,000 of them in the classifier.
    assert counter.parameters + 1_025_000 == 4_231_976
    assert round((counter.multiplications + 1024 * 1000) / 1e6) == 569
    assert len(counter.names) == 27


def test_the_stride_of_a_resnet_v1_5_block_is_in_its_3x3_convolution():
    strides = {}

    class Recorder(_Counter):
        def conv(self, x, layer):
            strides[layer.name] = layer.stride
            return super().conv(x, layer)

    architectures.resnet50(Recorder(), (224, 224, 3))
    assert strides["layer3.0.conv1"] == 1
    assert strides["layer3.0.conv2"] == 2
    assert strides["layer3.0.downsample.0"] == 2
    assert strides["layer3.1.conv2"] == 1


@pytest.mark.parametrize(
    ("padding", "size", "kernel", "stride", "expected"),
    [
        (Padding.SAME, 224, 3, 2, (0, 1)),
        (Padding.SAME, 225, 3, 2, (1, 1)),
        (Padding.SAME, 7, 3, 1, (1, 1)),
        (Padding.SAME, 8, 1, 2, (0, 0)),
        (Padding.FIXED, 224, 3, 2, (1, 1)),
        (Padding.FIXED, 224, 7, 2, (3, 3)),
        (Padding.FIXED, 56, 1, 2, (0, 0)),
    ],
)
def test_padding_is_tensorflows_or_pytorchs(padding, size, kernel, stride, expected):
    assert pad_widths(padding, size, kernel, stride) == expected


def test_a_convolution_with_fixed_padding_starts_outside_the_image():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    ones = np.ones((3, 3, 1, 1), np.float32)
    result = seeds.convolve(image, ones, 2, Padding.FIXED)
    assert result[0, :, :, 0].tolist() == [[10, 24], [51, 90]]


def test_a_convolution_with_same_padding_starts_inside_the_image():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    ones = np.ones((3, 3, 1, 1), np.float32)
    result = seeds.convolve(image, ones, 2, Padding.SAME)
    assert result[0, :, :, 0].tolist() == [[45, 39], [66, 50]]


def test_a_convolution_mixes_channels_by_its_weights():
    image = np.array([[[[1.0, 10.0]]]], np.float32)
    weights = np.array([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]], np.float32)
    assert seeds.convolve(image, weights, 1, Padding.SAME).ravel().tolist() == [41.0, 52.0, 63.0]


def test_a_depthwise_convolution_keeps_channels_apart():
    image = np.stack([np.ones((3, 3)), np.full((3, 3), 10.0)], axis=2)[None].astype(np.float32)
    weights = np.zeros((3, 3, 2, 1), np.float32)
    weights[1, 1, 0] = 1
    weights[1, 2, 1] = 1
    result = seeds.convolve_depthwise(image, weights, 1)
    assert result[0, :, :, 0].tolist() == [[1, 1, 1]] * 3
    assert result[0, :, :, 1].tolist() == [[10, 10, 0]] * 3


def test_a_seeded_normalisation_stores_the_statistics_of_what_it_saw():
    seeder = seeds.Seeder(np.random.default_rng(0))
    x = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32).reshape(2, 1, 1, 2)
    result = seeder.normalise(x, Norm("layer", 0.0001))
    assert seeder.arrays["layer/mean"].tolist() == [2.0, 5.0]
    assert seeder.arrays["layer/variance"].tolist() == [1.0, 0.0]
    gamma, beta = seeder.arrays["layer/gamma"], seeder.arrays["layer/beta"]
    assert result[:, 0, 0, 0] == pytest.approx([beta[0] - gamma[0], beta[0] + gamma[0]], abs=1e-3)
    assert result[:, 0, 0, 1] == pytest.approx([beta[1], beta[1]], abs=1e-3)

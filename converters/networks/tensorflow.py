"""Seeded weights as frozen TensorFlow graphs with the published files' tensor names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.formats.tensorflow import serialise, tf
from converters.networks.architectures import Layer, Norm, Padding, mobilenet, resnet50
from converters.networks.seeds import CLASSES, CLASSIFIER, Arrays


def build_resnet50(arrays: Arrays, target: Path) -> None:
    """Write ResNet-50 v1.5 as a frozen graph with the published file's input and outputs."""
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 224, 224, 3), "input_tensor")
        nodes = Nodes(arrays, variables="resnet_model", operations="resnet_model")
        features = tf.reduce_mean(resnet50(nodes, image), (1, 2), name="resnet_model/final_reduce_mean")
        kernel = nodes.constant(f"{CLASSIFIER}/weights", "resnet_model/dense/kernel")
        bias = nodes.constant(f"{CLASSIFIER}/bias", "resnet_model/dense/bias")
        products = tf.linalg.matmul(features, kernel, name="resnet_model/dense/MatMul")
        logits = tf.nn.bias_add(products, bias, name="resnet_model/dense/BiasAdd")
        tf.argmax(logits, axis=1, output_type=tf.int64, name="ArgMax")
        tf.nn.softmax(logits, name="softmax_tensor")
    target.write_bytes(serialise(graph.as_graph_def()))


def build_mobilenet(arrays: Arrays, target: Path) -> None:
    """Write MobileNet-v1 1.0 224 as a frozen graph with the published file's names."""
    logits_scope, end_scope = "MobilenetV1/Logits", "MobilenetV1/Predictions"
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 224, 224, 3), "input")
        nodes = Nodes(arrays, variables="MobilenetV1", operations="MobilenetV1/MobilenetV1")
        x = tf.nn.avg_pool2d(
            mobilenet(nodes, image), 7, 2, "VALID", name=f"{logits_scope}/AvgPool_1a/AvgPool"
        )
        kernel = nodes.constant(f"{CLASSIFIER}/weights", f"{logits_scope}/Conv2d_1c_1x1/weights", (1, 1))
        bias = nodes.constant(f"{CLASSIFIER}/bias", f"{logits_scope}/Conv2d_1c_1x1/biases")
        x = tf.nn.conv2d(x, kernel, 1, "SAME", name=f"{logits_scope}/Conv2d_1c_1x1/convolution")
        x = tf.nn.bias_add(x, bias, name=f"{logits_scope}/Conv2d_1c_1x1/BiasAdd")
        x = tf.squeeze(x, (1, 2), name=f"{logits_scope}/SpatialSqueeze")
        x = tf.nn.softmax(x, name=f"{end_scope}/Softmax")
        tf.reshape(x, (-1, CLASSES), name=f"{end_scope}/Reshape_1")
    target.write_bytes(serialise(graph.as_graph_def()))


class Nodes:
    """`architectures.Operations` that writes NHWC nodes with ready weights into the current graph."""

    def __init__(self, arrays: Arrays, *, variables: str = "", operations: str = "") -> None:
        """Take the weights, and the scopes under which they and the operations are named."""
        self._arrays = arrays
        self._variables = variables
        self._operations = operations

    def constant(self, key: str, name: str, leading: Sequence[int] = ()) -> Any:
        """Node `name` with the array `key`, which gets the `leading` axes of length 1 in front."""
        array = self._arrays[key]
        return tf.constant(array.reshape(*leading, *array.shape), name=name)

    def conv(self, x: Any, layer: Layer) -> Any:
        """Convolution, then the bias where there is one: a folded normalisation leaves one too."""
        name, stride = layer.name, layer.stride
        part = "depthwise_weights" if layer.is_depthwise else "weights"
        kernel = self.constant(f"{name}/weights", _scoped(self._variables, name, part))
        assert kernel.shape[:3] == (layer.kernel, layer.kernel, layer.inputs)
        x, padding = self.padded(x, layer)
        scope = _scoped(self._operations, name, "depthwise" if layer.is_depthwise else "convolution")
        if layer.is_depthwise:
            x = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), padding, name=scope)
        else:
            x = tf.nn.conv2d(x, kernel, stride, padding, name=scope)
        if layer.norm and f"{name}/bias" not in self._arrays:
            return self._normalise(x, layer.norm)
        bias = self.constant(f"{name}/bias", _scoped(self._variables, name, "bias"))
        return tf.nn.bias_add(x, bias, name=_scoped(self._operations, name, "BiasAdd"))

    def padded(self, x: Any, layer: Layer) -> tuple[Any, Any]:
        """What is convolved, and the padding that the convolution itself is to add."""
        if layer.padding != Padding.FIXED or layer.stride == 1:
            return x, "VALID" if layer.padding == Padding.VALID else "SAME"
        # What the published graph does: pad explicitly, then VALID, so that stride 2 stays centred.
        return tf.pad(x, around(layer.pad_px), name=_scoped(self._operations, layer.name, "Pad")), "VALID"

    def _normalise(self, x: Any, norm: Norm) -> Any:
        gamma, beta, mean, variance = (
            self.constant(
                f"{norm.name}/{part}", _scoped(self._variables, norm.name, f"BatchNorm/{published}")
            )
            for part, published in (
                ("gamma", "gamma"),
                ("beta", "beta"),
                ("mean", "moving_mean"),
                ("variance", "moving_variance"),
            )
        )
        scope = _scoped(self._operations, norm.name, "BatchNorm/FusedBatchNorm")
        result, *_ = tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, norm.epsilon, is_training=False, name=scope
        )
        return result

    def relu(self, x: Any, *, limit: float | None = None) -> Any:
        """ReLU or ReLU6."""
        assert limit in (None, 6.0)
        return tf.nn.relu(x) if limit is None else tf.nn.relu6(x)

    def add(self, x: Any, y: Any) -> Any:
        """Sum of two tensors."""
        return tf.add(x, y)

    def max_pool(self, x: Any, padding: Padding) -> Any:
        """Largest of each 3x3, stride 2; zero padding is harmless after a ReLU."""
        if padding == Padding.FIXED:
            return tf.nn.max_pool2d(tf.pad(x, around(1)), 3, 2, "VALID")
        return tf.nn.max_pool2d(x, 3, 2, str(padding).upper())


def around(pixels: int) -> list[list[int]]:
    """Padding of as many pixels on every side of an NHWC image."""
    return [[0, 0], [pixels] * 2, [pixels] * 2, [0, 0]]


def _scoped(scope: str, layer: str, part: str) -> str:
    return f"{scope}/{layer.replace('.', '/')}/{part}".removeprefix("/")

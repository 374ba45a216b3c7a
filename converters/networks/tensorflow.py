"""Seeded weights as frozen TensorFlow graphs with the published files' tensor names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.formats.tensorflow import serialise, tf
from converters.networks.architectures import Padding, mobilenet, pad_widths, resnet50
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
    """`architectures.Operations` that writes TensorFlow nodes with ready weights into the current graph."""

    def __init__(self, arrays: Arrays, *, variables: str, operations: str) -> None:
        """Take the weights, and the scopes under which they and the operations are named."""
        self._arrays = arrays
        self._variables = variables
        self._operations = operations

    def constant(self, key: str, name: str, leading: Sequence[int] = ()) -> Any:
        """Node `name` with the array `key`, which gets the `leading` axes of length 1 in front."""
        array = self._arrays[key]
        return tf.constant(array.reshape(*leading, *array.shape), name=name)

    def conv(self, x: Any, name: str, *, filters: int, kernel: int, stride: int, padding: Padding) -> Any:
        """Convolution."""
        weights = self.constant(f"{name}/weights", self._name(self._variables, name, "weights"))
        assert weights.shape[0] == kernel
        assert weights.shape[3] == filters
        if padding == Padding.FIXED and stride > 1:
            # What the published graph does: pad explicitly, then VALID, so that stride 2 stays centred.
            pads = [(0, 0), *(pad_widths(padding, x.shape[axis], kernel, stride) for axis in (1, 2)), (0, 0)]
            x = tf.pad(x, pads, name=self._name(self._operations, name, "Pad"))
        mode = "VALID" if padding == Padding.FIXED and stride > 1 else "SAME"
        return tf.nn.conv2d(x, weights, stride, mode, name=self._name(self._operations, name, "convolution"))

    def depthwise(self, x: Any, name: str, *, kernel: int, stride: int) -> Any:
        """Depthwise convolution."""
        weights = self.constant(f"{name}/weights", self._name(self._variables, name, "depthwise_weights"))
        assert weights.shape[0] == kernel
        scope = self._name(self._operations, name, "depthwise")
        return tf.nn.depthwise_conv2d(x, weights, (1, stride, stride, 1), "SAME", name=scope)

    def norm(self, x: Any, name: str, *, epsilon: float) -> Any:
        """Batch normalisation."""
        gamma, beta, mean, variance = (
            self.constant(f"{name}/{part}", self._name(self._variables, name, f"BatchNorm/{published}"))
            for part, published in (
                ("gamma", "gamma"),
                ("beta", "beta"),
                ("mean", "moving_mean"),
                ("variance", "moving_variance"),
            )
        )
        scope = self._name(self._operations, name, "BatchNorm/FusedBatchNorm")
        result, *_ = tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, epsilon, is_training=False, name=scope
        )
        return result

    def relu(self, x: Any, *, limit: float | None = None) -> Any:
        """ReLU or ReLU6."""
        assert limit in (None, 6.0)
        return tf.nn.relu(x) if limit is None else tf.nn.relu6(x)

    def add(self, x: Any, y: Any) -> Any:
        """Sum of two tensors."""
        return tf.add(x, y)

    def max_pool(self, x: Any) -> Any:
        """Largest of each 3x3, stride 2."""
        return tf.nn.max_pool2d(x, 3, 2, "SAME")

    @staticmethod
    def _name(scope: str, layer: str, part: str) -> str:
        return f"{scope}/{layer.replace('.', '/')}/{part}"

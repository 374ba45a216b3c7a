"""SSD-ResNet34 as a frozen TensorFlow graph, with decoding and NMS inside."""

from pathlib import Path
from typing import Any

import numpy as np

from converters.formats.tensorflow import serialise, tf
from converters.networks.architectures import Layer
from converters.networks.seeds import Arrays
from converters.networks.ssd_resnet34.boxes import (
    BOXES,
    CENTRE_VARIANCE,
    IOU_THRESHOLD,
    MOST_PER_CLASS,
    SCORE_THRESHOLD,
    SIZE_VARIANCE,
    default_boxes,
)
from converters.networks.ssd_resnet34.network import CLASSES, COORDINATES, features, heads
from converters.networks.ssd_resnet34.weights import Weights
from converters.networks.tensorflow import Nodes, around
from harness.models.declared.ssd_resnet34 import SLOTS
from harness.models.recipes import COCO_1200_TF


def build_ssd_resnet34(weights: Weights, target: Path) -> None:
    """Write a graph for any batch; an image's slots without a detection have class and score 0."""
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, *COCO_1200_TF.shape), "image")
        nodes = _Nodes(_arrays(weights))
        # TensorFlow's convolutions on CPUs are NHWC only.
        maps = features(nodes, tf.transpose(image, (0, 2, 3, 1), name="image_nhwc"))
        locations, logits = [], []
        for location, confidence in heads(nodes, maps):
            locations.append(_by_box(location, COORDINATES))
            logits.append(_by_box(confidence, CLASSES))
        scores = tf.nn.softmax(tf.concat(logits, 1), name="softmax")[:, :, 1:]
        _suppress(_decode(tf.concat(locations, 1)), scores)
    target.write_bytes(serialise(graph.as_graph_def()))


def _by_box(head: Any, numbers: int) -> Any:
    """(n, h, w, numbers * anchors) -> (n, anchors * h * w, numbers)."""
    height, width, channels = head.shape.as_list()[1:]
    anchors = channels // numbers
    x = tf.reshape(head, (-1, height, width, numbers, anchors))
    return tf.reshape(tf.transpose(x, (0, 4, 1, 2, 3)), (-1, anchors * height * width, numbers))


def _decode(locations: Any) -> Any:
    """(n, boxes, 4) -> (n, boxes, 4) corners y1, x1, y2, x2."""
    # Centres and sizes are x first.
    boxes = default_boxes()[:, (1, 0, 3, 2)]
    offsets, stretches = tf.gather(locations, (1, 0), axis=2), tf.gather(locations, (3, 2), axis=2)
    centre = offsets * (np.float32(CENTRE_VARIANCE) * boxes[:, 2:]) + boxes[:, :2]
    half = tf.exp(stretches * np.float32(SIZE_VARIANCE)) * (boxes[:, 2:] / 2)
    return tf.concat([centre - half, centre + half], 2, name="corners")


def _suppress(corners: Any, scores: Any) -> None:
    """(n, boxes, 4) and (n, boxes, classes) -> the graph's outputs."""
    found = tf.image.combined_non_max_suppression(
        tf.reshape(corners, (-1, BOXES, 1, 4)),
        scores,
        max_output_size_per_class=MOST_PER_CLASS,
        max_total_size=SLOTS,
        iou_threshold=IOU_THRESHOLD,
        score_threshold=SCORE_THRESHOLD,
        clip_boxes=False,
    )
    # The operation counts classes from the first score's, and says 0 in empty slots too.
    labels = tf.where(found.nmsed_scores > 0, found.nmsed_classes + 1, tf.zeros_like(found.nmsed_classes))
    tf.identity(found.nmsed_boxes, name="detection_bboxes")
    tf.identity(labels, name="detection_classes")
    tf.identity(found.nmsed_scores, name="detection_scores")


class _Nodes(Nodes):
    """Nodes whose convolutions pad for themselves."""

    def padded(self, x: Any, layer: Layer) -> tuple[Any, Any]:
        return x, around(layer.pad_px)


def _arrays(weights: Weights) -> Arrays:
    """The weights in TensorFlow's axis order."""
    kernels = {f"{name}/weights": folded.weights.transpose(2, 3, 1, 0) for name, folded in weights.items()}
    return kernels | {f"{name}/bias": folded.bias for name, folded in weights.items()}

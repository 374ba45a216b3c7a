"""SSD-MobileNet's frozen TensorFlow graph: built from seeded weights, and taken apart for other frameworks.

Its structure, names and numbers are those of the TF Object Detection API's ssd_mobilenet_v1_coco:
preprocessing ends in `Preprocessor/sub`, the predictors in `concat` and `concat_1`; the numbers of what
follows are those of its pipeline.config.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.formats.graph import Array, Images, closed_shapes
from converters.formats.reasons import reason_of
from converters.formats.tensorflow import FrozenGraph, read_frozen, serialise, tf, to_tflite
from converters.inputs import fixed_inputs
from converters.networks.architectures import ssd_mobilenet
from converters.networks.seeds import Arrays
from converters.networks.ssd_mobilenet import anchors
from converters.networks.ssd_mobilenet.seeds import CLASSES, predictor
from converters.networks.ssd_mobilenet.tflite import IDLE_CLASSES, DetectionOptions, append_detection
from converters.networks.tensorflow import Nodes
from harness.errors import ConversionError
from harness.models.recipes import COCO_300, fit
from harness.models.spec import Variant

PREPROCESSED, ENCODINGS, LOGITS = "Preprocessor/sub", "concat", "concat_1"

MAX_DETECTIONS = 100
"""Of one class, and of all together: `max_detections_per_class` and `max_total_detections`."""
SCORE_THRESHOLD = 1e-8
IOU_THRESHOLD = 0.6
ENCODING_SCALES = (10.0, 10.0, 5.0, 5.0)
"""`faster_rcnn_box_coder` of pipeline.config: y_scale, x_scale, height_scale, width_scale."""

_LOOPS = ("Enter", "While", "StatelessWhile")
_LINEARITY = 1e-5
"""Largest deviation of a preprocessed pixel, of -1 to 1, from a straight line."""


def build_ssd_mobilenet(arrays: Arrays, target: Path) -> None:
    """Write SSD-MobileNet-v1 1.0 300 as a frozen graph with the published file's names."""
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
        x = tf.compat.v1.image.resize_bilinear(
            tf.cast(image, tf.float32, "ToFloat"), COCO_300.size_px, name="Preprocessor/ResizeImage"
        )
        x = tf.subtract(tf.multiply(x, 2 / 255, "Preprocessor/mul"), 1.0, PREPROCESSED)
        scope = "FeatureExtractor/MobilenetV1"
        nodes = Nodes(arrays, variables=scope, operations=f"{scope}/MobilenetV1")
        maps = ssd_mobilenet(nodes, x)
        boxes = [_predict(nodes, x, layer, "BoxEncodingPredictor", (1, 4)) for layer, x in enumerate(maps)]
        classes = [_predict(nodes, x, layer, "ClassPredictor", (CLASSES,)) for layer, x in enumerate(maps)]
        encodings, logits = tf.concat(boxes, 1, ENCODINGS), tf.concat(classes, 1, LOGITS)
        postprocess(encodings, logits, anchors.mobilenet_anchors())
    target.write_bytes(serialise(graph.as_graph_def()))


def _predict(nodes: Nodes, features: Any, layer: int, kind: str, last: tuple[int, ...]) -> Any:
    """(n, anchors of the layer, *last): a 1x1 convolution, its channels grouped by anchor."""
    name = predictor(layer, kind)
    kernel = nodes.constant(f"{name}/weights", f"{name}/weights", (1, 1))
    bias = nodes.constant(f"{name}/bias", f"{name}/biases")
    x = tf.nn.conv2d(features, kernel, 1, "SAME", name=f"{name}/convolution")
    x = tf.nn.bias_add(x, bias, name=f"{name}/BiasAdd")
    boxes = int(np.prod(x.shape[1:])) // int(np.prod(last))
    return tf.reshape(x, (-1, boxes, *last), name=f"{name}/Reshape")


def postprocess(encodings: Any, logits: Any, boxes: NDArray[np.float32]) -> None:
    """Add decoding and NMS to the current graph, and the published outputs.

    Args:
        encodings: (n, anchors, 1, 4) or (n, anchors, 4): centre y and x, log height and width, scaled.
        logits: (n, anchors, 1 + classes), background first.
        boxes: (anchors, 4), the anchors: centre y, centre x, height, width.
    """
    with tf.compat.v1.name_scope("Postprocessor"):
        scaled = tf.reshape(encodings, (-1, *boxes.shape)) / np.array(ENCODING_SCALES, np.float32)
        centres = scaled[..., :2] * boxes[:, 2:] + boxes[:, :2]
        halves = tf.exp(scaled[..., 2:]) * (boxes[:, 2:] / 2)
        corners = tf.concat([centres - halves, centres + halves], axis=2)
        scores = tf.sigmoid(logits, "convert_scores")
        found = tf.image.combined_non_max_suppression(
            tf.expand_dims(corners, 2),
            scores[..., 1:],
            MAX_DETECTIONS,
            MAX_DETECTIONS,
            IOU_THRESHOLD,
            SCORE_THRESHOLD,
        )
    tf.identity(found.nmsed_boxes, "detection_boxes")
    tf.identity(found.nmsed_scores, "detection_scores")
    # Without the background the first class is 0; COCO's is 1.
    tf.add(found.nmsed_classes, 1.0, "detection_classes")
    tf.cast(found.valid_detections, tf.float32, "num_detections")


@dataclass(frozen=True)
class Predictors:
    """What is between a graph's preprocessing and its postprocessing, and what is to be known of the two."""

    graph_def: Any
    """From `PREPROCESSED` to `ENCODINGS` and `LOGITS`."""
    size_px: tuple[int, int]
    scale: float
    """Preprocessing, once an image has the right size: pixel * scale + offset."""
    offset: float
    anchors: NDArray[np.float32]
    """(anchors, 4): centre y, centre x, height, width."""
    classes: int
    """With background."""

    def apply(self, image: Any) -> tuple[Any, Any]:
        """Add the preprocessing and the predictors to the current graph.

        Args:
            image: (n, *size_px, 3) uint8.

        Returns:
            Encodings (n, anchors, 4) and logits (n, anchors, classes).
        """
        with tf.compat.v1.name_scope("Pixels"):
            pixels = tf.cast(image, tf.float32) * np.float32(self.scale) + np.float32(self.offset)
        encodings, logits = tf.import_graph_def(
            self.graph_def, {PREPROCESSED: pixels}, [f"{ENCODINGS}:0", f"{LOGITS}:0"], name="Predictors"
        )
        # The published graph's own reshapes depend on the batch: these give the shapes that exporters need.
        leading = (image.shape[0] or -1, len(self.anchors))
        return tf.reshape(encodings, (*leading, 4)), tf.reshape(logits, (*leading, self.classes))


def cut(frozen: FrozenGraph, source: Path, named: Variant) -> Predictors:
    """Take the predictors out of a graph.

    Args:
        frozen: the whole graph.
        source: where it is from, for messages.
        named: the model as TensorFlow serves it; says the image's size where the graph leaves it open.

    Raises:
        ConversionError: the graph isn't made like the published one.
    """
    wanted = (PREPROCESSED, ENCODINGS, LOGITS)
    names = {node.name for node in frozen.graph_def.node}
    if missing := [name for name in wanted if name not in names]:
        raise ConversionError(
            f"{source}: has no node {missing[0]}; only a detector made like the TF Object Detection API's "
            "SSD-MobileNet-v1 can be exported to this framework; give a file of the framework itself"
        )
    images = Images(named.preprocess.size_px, named.preprocess.layout)
    _, height, width, _ = closed_shapes(frozen.input_shape, images)[0]
    drawn = fixed_inputs(fit(named.preprocess, size_px=(height, width)), 1)
    probes = np.concatenate([np.zeros_like(drawn), np.full_like(drawn, 255), drawn])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(frozen.graph_def, name="")
        feed = {f"{frozen.input_name}:0": probes}
        try:
            seen, logits = session.run([f"{PREPROCESSED}:0", f"{LOGITS}:0"], feed)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            reason = reason_of(error)
            raise ConversionError(
                f"{source}: does not run on uint8 images of {list(drawn.shape)}: {reason}"
            ) from error
    if logits.ndim != 3:
        raise ConversionError(f"{source}: node {LOGITS} is {list(logits.shape)}, not [n, anchors, classes]")
    scale, offset = _line(seen, probes, source)
    boxes = _anchors(frozen.graph_def, logits.shape[1], source)
    return Predictors(frozen.graph_def, (height, width), scale, offset, boxes, logits.shape[2])


def _line(seen: Array, probes: Array, source: Path) -> tuple[float, float]:
    """Scale and offset of a preprocessing that treats all pixels alike.

    Args:
        seen: (3, height, width, 3) float32, what it made of `probes`.
        probes: (3, height, width, 3) uint8: all 0, all 255, anything.
        source: for messages.
    """
    offset = float(seen[0].mean())
    scale = (float(seen[1].mean()) - offset) / 255
    if seen.shape != probes.shape or np.abs(probes * scale + offset - seen).max() > _LINEARITY:
        raise ConversionError(f"{source}: its preprocessing is more than a multiplication and an addition")
    return scale, offset


def _anchors(graph_def: Any, count: int, source: Path) -> NDArray[np.float32]:
    """The anchors that the graph has as a constant; the published ones where it computes them."""
    constants = [
        tf.make_ndarray(node.attr["value"].tensor)
        for node in graph_def.node
        if node.op == "Const" and _dimensions(node) == [count, 4]
    ]
    if len(constants) == 1:
        return np.asarray(constants[0], np.float32)
    published = anchors.mobilenet_anchors()
    if constants or len(published) != count:
        raise ConversionError(
            f"{source}: which {count} anchors its boxes are relative to is not to be found in it "
            f"(SSD-MobileNet-v1 300 has {len(published)})"
        )
    return published


def _dimensions(node: Any) -> list[int]:
    return [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]


def without_loops(frozen: FrozenGraph, source: Path, named: Variant) -> FrozenGraph:
    """Replace the loops over images and classes that the published graph pre- and postprocesses with.

    They would be exported as loops. A graph without loops, or of another make, is returned as it is.
    """
    names = {node.name for node in frozen.graph_def.node}
    has_loops = any(node.op in _LOOPS for node in frozen.graph_def.node)
    if not has_loops or not names.issuperset((PREPROCESSED, ENCODINGS, LOGITS)):
        return frozen
    predictors = cut(frozen, source, named)
    with tf.Graph().as_default() as graph:
        shape = (None, *predictors.size_px, 3)
        image = tf.compat.v1.placeholder(tf.uint8, shape, frozen.input_name)
        postprocess(*predictors.apply(image), predictors.anchors)
        outputs = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
        graph_def = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), list(outputs))
    return FrozenGraph(graph_def, frozen.input_name, outputs)


def export_tflite(source: Path, target: Path, named: Variant, served: Variant) -> None:
    """Convert to float TFLite whose decoding and NMS are LiteRT's own operation; takes one image at a time.

    Args:
        source: frozen graph or SavedModel.
        target: file to write.
        named: the model as TensorFlow serves it.
        served: the model as TFLite serves it: names of the input and the outputs.

    Raises:
        ConversionError: the graph isn't made like the published one.
    """
    predictors = cut(read_frozen(source, named), source, named)
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (1, *predictors.size_px, 3), served.input.name)
        encodings, logits = predictors.apply(image)
        scores = tf.pad(tf.sigmoid(logits[..., 1:]), ((0, 0), (0, 0), (IDLE_CLASSES, 0)), name="scores")
        names = (tf.identity(encodings, "encodings").op.name, scores.op.name)
        graph_def = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), list(names))
    content = to_tflite(FrozenGraph(graph_def, served.input.name, names), source)
    options = DetectionOptions(MAX_DETECTIONS, SCORE_THRESHOLD, IOU_THRESHOLD, ENCODING_SCALES)
    outputs = [output.name for output in served.outputs]
    target.write_bytes(append_detection(content, predictors.anchors, options, outputs))

"""SSD-MobileNet, seeded and real, built and exported by the real frameworks; no server.

The real graph and its photographs: ../shared/data/README.md.
"""

import shutil

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters.conversion import model_files, own_files
from converters.formats.tensorflow import FrozenGraph, serialise, tf
from converters.inputs import fixed_inputs
from converters.networks.ssd_mobilenet import anchors, tensorflow
from harness.data import preprocess
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.recipes import COCO_300
from harness.models.spec import BoxOrder, DType
from tests.real_data import COCO, WEIGHTS, needs_real_data
from tests.seeded import seeded_file

SPEC = MODELS["ssd-mobilenet"]
FROZEN = "ssd_mobilenet_v1_0.75_coco_dequant_frozen.pb"
QUANT = "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"

BATCHES = (1, 3)
TOLERANCE = 1e-4
"""Of scores and corners: a tenth of what the declarations allow."""


@pytest.fixture(scope="module")
def seeded():
    return seeded_file("ssd-mobilenet", "tensorflow")


@pytest.fixture(scope="module", params=["seeded", pytest.param("real", marks=needs_real_data)])
def source(request):
    return request.getfixturevalue("seeded") if request.param == "seeded" else WEIGHTS / FROZEN


@pytest.fixture(scope="module")
def images(source):
    if source.parent == WEIGHTS:
        photographs = sorted((COCO / "val2017").iterdir())[: sum(BATCHES)]
        return np.stack([preprocess.load(path, COCO_300) for path in photographs])
    return fixed_inputs(COCO_300, sum(BATCHES))


def _detections(graph, detection, images, batches=BATCHES):
    """(class, score, ymin, xmin, ymax, xmax) of every slot that counts, for each image."""
    names = [output.name for output in graph.outputs]
    results = []
    for end, size in zip(np.cumsum(batches), batches, strict=True):
        answers = dict(zip(names, graph.run(images[end - size : end]), strict=True))
        for index in range(size):
            found = int(answers[detection.count][index])
            classes = answers[detection.classes][index, :found, None] + detection.class_offset
            scores = answers[detection.scores][index, :found, None]
            results.append(np.hstack([classes, scores, answers[detection.boxes][index, :found]]))
    return results


def _expected(source, images):
    with model_files.open_file(source, SPEC) as graph:
        return _detections(graph, SPEC.variants[Platform.TENSORFLOW].detection, images)


def _without_twin(found, others):
    """Rows that have none in `others` of the same class, score and corners.

    Those that tie for the last slot are left out: rounding errors decide which of them has it.
    """
    same_class = found[:, None, 0] == others[None, :, 0]
    difference = np.abs(found[:, None, 1:] - others[None, :, 1:]).max(axis=2)
    has_twin = (same_class & (difference < TOLERANCE)).any(axis=1)
    return found[~has_twin & (found[:, 1] > found[-1, 1] + TOLERANCE)]


def _assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        assert _without_twin(ours, theirs).tolist() == []
        assert _without_twin(theirs, ours).tolist() == []


# Anchors


def test_the_anchors_are_by_layer_row_column_and_shape():
    boxes = anchors.mobilenet_anchors()
    assert boxes.shape == (1917, 4)
    assert boxes.dtype == np.float32
    # By hand from pipeline.config: the small square and the two shapes of scale 0.2 in the lowest layer …
    assert boxes[0] == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1], abs=1e-6)
    assert boxes[1] == pytest.approx([0.5 / 19, 0.5 / 19, 0.1414214, 0.2828427], abs=1e-6)
    assert boxes[2] == pytest.approx([0.5 / 19, 0.5 / 19, 0.2828427, 0.1414214], abs=1e-6)
    # … the next column, the next row …
    assert boxes[3][:2] == pytest.approx([0.5 / 19, 1.5 / 19], abs=1e-6)
    assert boxes[57][:2] == pytest.approx([1.5 / 19, 0.5 / 19], abs=1e-6)
    # … the next layer's scale of 0.35 and its last square, of sqrt(0.35 * 0.5); and the whole image.
    assert boxes[1083] == pytest.approx([0.05, 0.05, 0.35, 0.35], abs=1e-6)
    assert boxes[1088] == pytest.approx([0.05, 0.05, 0.4183300, 0.4183300], abs=1e-6)
    assert boxes[-1] == pytest.approx([0.5, 0.5, 0.9746794, 0.9746794], abs=1e-6)


@needs_real_data
def test_the_anchors_are_the_published_ones():
    graph = tf.compat.v1.GraphDef.FromString((WEIGHTS / FROZEN).read_bytes())
    (node,) = (node for node in graph.node if node.name == "Const_94")
    published = tf.make_ndarray(node.attr["value"].tensor)
    # They were quantised: all are multiples of a step, and so up to half a step off.
    step = np.diff(np.unique(published)).min()
    assert step < 0.0066
    assert np.abs(anchors.mobilenet_anchors() - published).max() <= step / 2


# Seeded weights


def test_the_network_has_the_published_size(seeded):
    nodes = tf.compat.v1.GraphDef.FromString(seeded.read_bytes()).node
    kinds = ("weights", "depthwise_weights", "biases", "gamma", "beta")
    stored = [node for node in nodes if node.op == "Const" and node.name.split("/")[-1] in kinds]
    learned = sum(tf.make_ndarray(node.attr["value"].tensor).size for node in stored)
    # arXiv:1704.04861, table 13: 6.8 million parameters at 300x300.
    assert round(learned / 1e6, 1) == 6.8


def test_seeded_weights_find_tens_of_objects_of_several_classes_different_in_each_image(seeded):
    with model_files.open_file(seeded, SPEC) as graph:
        detection = SPEC.variants[Platform.TENSORFLOW].detection
        found = _detections(graph, detection, fixed_inputs(COCO_300, 12), (12,))
    clear = [rows[rows[:, 1] > 0.3] for rows in found]
    assert all(10 <= len(rows) <= 90 for rows in clear)
    assert np.mean([len(rows) for rows in clear]) >= 20
    assert all(len(set(rows[:, 0])) >= 5 for rows in clear)
    classes = np.concatenate(clear)[:, 0]
    assert len(set(classes)) >= 30
    assert np.isin(classes, range(1, 91)).all()
    assert len({tuple(rows[0].round(2)) for rows in clear}) == 12
    # Far from equal scores: rounding errors, of 1e-5, have nothing to decide.
    assert np.median([rows[0, 1] - rows[-1, 1] for rows in found]) > 0.5


# Exports


def test_the_graph_has_the_declared_tensors_though_it_leaves_height_and_width_open(source):
    variant = SPEC.variants[Platform.TENSORFLOW]
    with model_files.open_file(source, SPEC) as graph:
        assert graph.input == variant.input
        assert set(graph.outputs) == set(variant.outputs)
        assert graph.fixed_batch == 0


def test_the_seeded_graph_takes_images_of_any_size(seeded):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(seeded.read_bytes()), name="")
        image = fixed_inputs(COCO_300, 1)
        # Every pixel twice in both directions: what is resized back is the image itself.
        large = image.repeat(2, axis=1).repeat(2, axis=2)
        once, twice = (session.run("detection_scores:0", {"image_tensor:0": x}) for x in (image, large))
    assert once == pytest.approx(twice, abs=1e-6)


@pytest.mark.parametrize("platform", [Platform.ONNXRUNTIME, Platform.TFLITE])
def test_an_export_finds_what_tensorflow_finds_in_batches_of_any_size(platform, source, images, tmp_path):
    variant = SPEC.variants[platform]
    target = tmp_path / platform.facts.model_filename
    model_files.export(platform, source, target, SPEC)
    with model_files.open_file(target, SPEC) as graph:
        assert graph.input == variant.input
        assert set(graph.outputs) == set(variant.outputs)
        found = _detections(graph, variant.detection, images)
    _assert_same(found, _expected(source, images))


@pytest.fixture(scope="module")
def tflite(seeded, tmp_path_factory):
    target = tmp_path_factory.mktemp("tflite") / "model.tflite"
    model_files.export(Platform.TFLITE, seeded, target, SPEC)
    return target


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 8, 50])
def test_litert_finds_the_same_with_any_number_of_threads(threads, seeded, tflite):
    image = fixed_inputs(COCO_300, 4)[3:]
    interpreter = Interpreter(str(tflite), num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    (boxes,), (classes,), (scores,), (count,) = (
        interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()
    )
    assert count == 100
    found = np.column_stack([classes + 1, scores, boxes])
    with model_files.open_file(seeded, SPEC) as graph:
        expected = _detections(graph, SPEC.variants[Platform.TENSORFLOW].detection, image, (1,))
    _assert_same([found], expected)


def test_a_tflite_file_ends_boxes_where_the_image_ends(seeded, tflite):
    images = fixed_inputs(COCO_300, 4)
    with model_files.open_file(tflite, SPEC) as graph:
        boxes = graph.run(images)[0]
    assert boxes.shape == (4, 100, 4)
    assert boxes.min() == 0.0
    assert boxes.max() == 1.0


def _with_loops(predictors, target):
    """A detector as the published file has it: loops over images and classes, in TensorFlow 1's own nodes."""
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
            resized = tf.map_fn(
                lambda one: tf.compat.v1.image.resize_images(one, (300, 300)), tf.cast(image, tf.float32)
            )
            x = tf.subtract(resized * np.float32(2 / 255), 1.0, "Preprocessor/sub")
            encodings, logits = tf.import_graph_def(
                predictors.graph_def, {"Preprocessor/sub": x}, ["concat:0", "concat_1:0"], name="Original"
            )
            encodings, logits = tf.identity(encodings, "concat"), tf.identity(logits, "concat_1")
            boxes = tf.map_fn(lambda one: _decoded(one, predictors.anchors), encodings)
            outputs = tf.map_fn(_one_image, (boxes, tf.sigmoid(logits)), (tf.float32,) * 4)
            names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
            for output, name in zip(outputs, names, strict=True):
                tf.identity(output, name)
            graph_def = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), list(names))
    finally:
        tf.compat.v1.enable_control_flow_v2()
    target.write_bytes(serialise(graph_def))


def _decoded(encodings, boxes):
    y, x, height, width = tf.unstack(tf.reshape(encodings, (-1, 4)), axis=1)
    y, x = y / 10 * boxes[:, 2] + boxes[:, 0], x / 10 * boxes[:, 3] + boxes[:, 1]
    height, width = tf.exp(height / 5) * boxes[:, 2] / 2, tf.exp(width / 5) * boxes[:, 3] / 2
    return tf.stack([y - height, x - width, y + height, x + width], axis=1)


def _one_image(boxes_and_scores):
    boxes, scores = boxes_and_scores
    parts = []
    for number in range(1, 91):
        kept = tf.image.non_max_suppression(boxes, scores[:, number], 100, 0.6, 1e-8)
        of_class = tf.fill((tf.size(kept),), float(number))
        parts.append((tf.gather(boxes, kept), tf.gather(scores[:, number], kept), of_class))
    boxes, scores, classes = (tf.concat(part, 0) for part in zip(*parts, strict=True))
    scores, best = tf.math.top_k(scores, 100)
    boxes = tf.clip_by_value(tf.gather(boxes, best), 0.0, 1.0)
    return boxes, scores, tf.gather(classes, best), tf.cast(tf.size(scores), tf.float32)


@pytest.fixture(scope="module")
def looped(seeded, tmp_path_factory):
    graph_def = tf.compat.v1.GraphDef.FromString(seeded.read_bytes())
    variant = SPEC.variants[Platform.TENSORFLOW]
    frozen = FrozenGraph(graph_def, "image_tensor", tuple(output.name for output in variant.outputs))
    target = tmp_path_factory.mktemp("looped") / "looped.pb"
    _with_loops(tensorflow.cut(frozen, seeded, variant), target)
    return target


@pytest.mark.parametrize("platform", [Platform.ONNXRUNTIME, Platform.TFLITE])
def test_a_graph_made_of_loops_is_exported_without_them(platform, looped, seeded, tmp_path):
    operations = {node.op for node in tf.compat.v1.GraphDef.FromString(looped.read_bytes()).node}
    assert "Enter" in operations
    assert "CombinedNonMaxSuppression" not in operations
    target = tmp_path / platform.facts.model_filename
    model_files.export(platform, looped, target, SPEC)
    images = fixed_inputs(COCO_300, sum(BATCHES))
    with model_files.open_file(target, SPEC) as graph:
        assert set(graph.outputs) == set(SPEC.variants[platform].outputs)
        found = _detections(graph, SPEC.variants[platform].detection, images)
    _assert_same(found, _expected(looped, images))
    _assert_same(found, _expected(seeded, images))


def test_a_graph_of_another_make_is_refused_by_name(tmp_path):
    path = tmp_path / "yolo.pb"
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (None, 300, 300, 3), "image")
        tf.reduce_mean(tf.cast(image, tf.float32), (1, 2), name="answer")
    path.write_bytes(serialise(graph.as_graph_def()))
    with pytest.raises(ConversionError, match=r"yolo\.pb: has no node Preprocessor/sub; .* can be exported"):
        model_files.export(Platform.TFLITE, path, tmp_path / "model.tflite", SPEC)


# Users' own files


@needs_real_data
def test_an_own_tflite_file_is_taken_as_it_is_and_described(tmp_path):
    path = WEIGHTS / QUANT
    target = tmp_path / "model.tflite"
    model_files.export(Platform.TFLITE, path, target, SPEC)
    assert target.read_bytes() == path.read_bytes()
    with model_files.open_file(target, SPEC) as graph:
        variant = own_files.variant_of(graph, SPEC.variants[Platform.TFLITE])
    assert variant.input == SPEC.variants[Platform.TFLITE].input
    assert [output.shape for output in variant.outputs] == [(10, 4), (10,), (10,), ()]
    assert variant.detection == SPEC.variants[Platform.TFLITE].detection
    assert variant.preprocess == COCO_300


def test_an_own_frozen_graph_is_described_as_the_published_one_is(source):
    with model_files.open_file(source, SPEC) as graph:
        variant = own_files.variant_of(graph, SPEC.variants[Platform.TENSORFLOW])
    declared = SPEC.variants[Platform.TENSORFLOW]
    assert variant.detection == declared.detection
    assert variant.detection.box_order == BoxOrder.YXYX
    assert variant.input.dtype == DType.UINT8
    assert set(variant.outputs) == set(declared.outputs)
    assert variant.max_batch_size == declared.max_batch_size


@needs_real_data
def test_a_classifier_is_no_detector_and_a_detector_no_classifier(tmp_path):
    classifier = tmp_path / "net.tflite"
    shutil.copyfile(WEIGHTS / "mobilenet_v1_1.0_224_quant.tflite", classifier)
    with (
        model_files.open_file(classifier, SPEC) as graph,
        pytest.raises(ConversionError, match=r"net\.tflite: not a detector: .* it has .* \[n, 1001\]$"),
    ):
        own_files.check_task(graph, SPEC.variants[Platform.TFLITE])
    with (
        model_files.open_file(WEIGHTS / FROZEN, SPEC) as graph,
        pytest.raises(ConversionError, match=r"_frozen\.pb: not an image classifier: "),
    ):
        own_files.check_task(graph, MODELS["mobilenet"].variants[Platform.TENSORFLOW])

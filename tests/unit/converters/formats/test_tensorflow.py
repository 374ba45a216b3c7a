"""TensorFlow's graphs: which outputs they have, and by how many threads they are run."""

import os
from pathlib import Path

import numpy as np
import pytest

from converters.conversion import model_files
from converters.formats import tensorflow
from converters.formats.tensorflow import export_graph_def, export_saved_model, read_frozen, serialise, tf
from harness.errors import ConversionError
from harness.models import MODELS

SIDE_PX = 224


@pytest.fixture(scope="module")
def frozen_file(tmp_path_factory):
    """A graph whose product threads can share."""
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, SIDE_PX, SIDE_PX, 3], "images")
        rows = tf.reshape(images, [-1, SIDE_PX * 3])
        product = tf.matmul(rows, rows, transpose_a=True)
        tf.reshape(product[0, :3], [1, 3], "scores")
    path = tmp_path_factory.mktemp("frozen") / "model.pb"
    path.write_bytes(serialise(graph.as_graph_def()))
    return path


@pytest.fixture(params=["graph", "SavedModel"])
def path(request, frozen_file):
    if request.param == "graph":
        return frozen_file
    folder = frozen_file.with_name("saved_model")
    export_saved_model(frozen_file, folder, None)
    return folder


def _threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_an_export_is_run_by_one_thread_and_its_source_by_all_in_either_order(path):
    batch = np.full((16, SIDE_PX, SIDE_PX, 3), 1e-3, np.float32)
    started = []
    for as_served in (False, True, False):
        before = _threads()
        with model_files.open_file(path, MODELS["mobilenet"], as_served=as_served) as graph:
            graph.run(batch)
            started.append(_threads() - before)
    # Of operations and within one, so many each; the first session may start others, too.
    assert started[1:] == [2, 2 * len(os.sched_getaffinity(0))]


def test_each_output_of_an_operation_that_ends_a_graph_can_be_asked_for(tmp_path):
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, SIDE_PX, SIDE_PX, 3], "images")
        tf.nn.top_k(tf.reduce_mean(images, (1, 2)), 2, name="top")
        tf.identity(images[:, 0, 0, 0], "top_1")
    source, target = tmp_path / "net.pb", tmp_path / "model.graphdef"
    source.write_bytes(serialise(graph.as_graph_def()))
    export_graph_def(source, target, None)
    assert set(read_frozen(source, None).output_names) == set(read_frozen(target, None).output_names)
    batch = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.float32)
    batch[..., :] = (1, 3, 2)
    for path in (source, target):
        with model_files.open_file(path, MODELS["mobilenet"]) as opened:
            found = dict(zip((output.name for output in opened.outputs), opened.run(batch), strict=True))
        assert {name: answer.tolist() for name, answer in found.items()} == {
            "top_0": [[3, 2]],
            "top_1_": [[1, 2]],
            "top_1": [1],
        }


def test_a_saved_model_without_the_signature_that_is_served_names_those_it_has(
    frozen_file, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(tensorflow, "_SIGNATURE", "predict")
        export_saved_model(frozen_file, tmp_path / "net", None)
    message = "net: has no signature serving_default, which servers ask for, but predict: save it with"
    with (
        pytest.raises(ConversionError, match=message),
        model_files.open_file(tmp_path / "net", MODELS["mobilenet"]),
    ):
        pass


def test_the_file_of_a_saved_model_is_no_frozen_graph(frozen_file, tmp_path):
    export_saved_model(frozen_file, tmp_path / "net", None)
    with pytest.raises(ConversionError, match=r"saved_model\.pb: the file of a SavedModel.*give its folder"):
        read_frozen(tmp_path / "net" / "saved_model.pb", None)

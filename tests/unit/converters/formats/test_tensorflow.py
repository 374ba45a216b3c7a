"""How a graph is run that the server is to run: by as many threads as there."""

import os
from pathlib import Path

import numpy as np
import pytest

from converters.conversion import model_files
from converters.formats.tensorflow import export_saved_model, serialise, tf
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

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from harness.data import preprocess, sample_cache
from harness.data.dataset import Sample
from harness.data.imagenet import open_synthetic
from harness.data.sample_cache import cache_path, preprocessed
from harness.errors import ConfigError, DatasetError
from harness.machine.paths import PROJECT_ROOT
from harness.models.recipes import IMAGENET, IMAGENET_MOBILENET, IMAGENET_PYTORCH, fit
from harness.models.spec import DType, Layout


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_synthetic(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def mapped(dataset, recipe, cache):
    return np.load(preprocessed(dataset, recipe, cache), mmap_mode="r", allow_pickle=False)


def built(caplog):
    """How many times samples were preprocessed since the last call."""
    count = sum(record.getMessage().startswith("preprocessed ") for record in caplog.records)
    caplog.clear()
    return count


@pytest.mark.parametrize(
    "recipe",
    [
        IMAGENET,
        IMAGENET_PYTORCH,
        fit(IMAGENET_MOBILENET, dtype=DType.UINT8, layout=Layout.NCHW, size_px=(192, 192)),
    ],
    ids=["float NHWC", "float NCHW", "uint8 192"],
)
def test_the_array_holds_every_sample_in_order(dataset, cache, recipe):
    array = mapped(dataset, recipe, cache)
    assert array.shape == (12, *recipe.shape)
    assert array.dtype == recipe.dtype.value
    expected = np.stack([preprocess.load(sample.path, recipe) for sample in dataset.samples])
    assert np.array_equal(array, expected)


def test_a_second_call_preprocesses_nothing(dataset, cache, caplog):
    caplog.set_level(logging.INFO)
    preprocessed(dataset, IMAGENET, cache)
    assert built(caplog) == 1
    preprocessed(dataset, IMAGENET, cache)
    assert built(caplog) == 0


def test_nothing_but_the_entry_is_left_in_the_folder(dataset, cache):
    file = preprocessed(dataset, IMAGENET, cache)
    assert file == cache_path(dataset, IMAGENET, cache)
    assert list(cache.iterdir()) == [file.parent]
    assert sorted(path.name for path in file.parent.iterdir()) == ["manifest.json", "samples.npy"]


def test_every_recipe_and_data_set_has_an_entry_of_its_own(dataset, cache):
    others = [
        cache_path(dataset, IMAGENET, cache),
        cache_path(dataset, fit(IMAGENET, layout=Layout.NCHW), cache),
        cache_path(dataset, fit(IMAGENET, dtype=DType.UINT8), cache),
        cache_path(dataset, fit(IMAGENET, size_px=(192, 192)), cache),
        cache_path(dataset, replace(IMAGENET, steps=IMAGENET_MOBILENET.steps), cache),
        cache_path(replace(dataset, fingerprint="other"), IMAGENET, cache),
        cache_path(replace(dataset, samples=dataset.samples[:5]), IMAGENET, cache),
    ]
    assert len(set(others)) == len(others)


def flip_a_bit(entry):
    with (entry / "samples.npy").open("r+b") as stream:
        stream.seek(-700_000, os.SEEK_END)
        value = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([value ^ 4]))


def flip_a_bit_unnoticed_by_the_clock(entry):
    before = (entry / "samples.npy").stat()
    flip_a_bit(entry)
    os.utime(entry / "samples.npy", ns=(before.st_atime_ns, before.st_mtime_ns))


def cut_off(entry):
    os.truncate(entry / "samples.npy", 1_000_000)


def cut_off_by_a_sample_with_a_fitting_header(entry):
    array = np.load(entry / "samples.npy")
    np.save(entry / "samples.npy", array[:-1])


def other_dtype(entry):
    array = np.load(entry / "samples.npy")
    np.save(entry / "samples.npy", array.view(np.int32))


def fortran_order(entry):
    array = np.load(entry / "samples.npy")
    np.save(entry / "samples.npy", np.asfortranarray(array))


def pickled(entry):
    np.save(entry / "samples.npy", np.array([{}], dtype=object), allow_pickle=True)


def emptied(entry):
    (entry / "samples.npy").write_bytes(b"")


def without_array(entry):
    (entry / "samples.npy").unlink()


def without_manifest(entry):
    (entry / "manifest.json").unlink()


def broken_manifest(entry):
    (entry / "manifest.json").write_text('{"key": ')


def manifest_of_something_else(entry):
    change_manifest(entry, lambda fields: fields["key"].update(decoder="opencv 3"))


def manifest_with_other_digests(entry):
    change_manifest(entry, lambda fields: fields.update(samples="0" * len(fields["samples"])))


def manifest_of_another_form(entry):
    change_manifest(entry, lambda fields: fields.pop("digest"))


def change_manifest(entry, change):
    fields = json.loads((entry / "manifest.json").read_text())
    change(fields)
    (entry / "manifest.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        flip_a_bit_unnoticed_by_the_clock,
        cut_off,
        cut_off_by_a_sample_with_a_fitting_header,
        other_dtype,
        fortran_order,
        pickled,
        emptied,
        without_array,
        without_manifest,
        broken_manifest,
        manifest_of_something_else,
        manifest_with_other_digests,
        manifest_of_another_form,
    ],
)
def test_a_damaged_entry_is_built_again_and_said_so(dataset, cache, caplog, damage):
    caplog.set_level(logging.INFO)
    original = np.array(mapped(dataset, IMAGENET, cache))
    built(caplog)
    damage(cache_path(dataset, IMAGENET, cache).parent)
    array = mapped(dataset, IMAGENET, cache)
    assert "not sound" in caplog.text
    assert built(caplog) == 1
    assert np.array_equal(array, original)
    preprocessed(dataset, IMAGENET, cache)
    assert built(caplog) == 0


def test_a_large_array_that_was_touched_is_checked_whole(dataset, cache, caplog, monkeypatch):
    monkeypatch.setattr(sample_cache, "_CHECK_ALL_BELOW_BYTES", 0)
    monkeypatch.setattr(sample_cache, "_CHECKED_SAMPLES", 0)
    caplog.set_level(logging.INFO)
    preprocessed(dataset, IMAGENET, cache)
    built(caplog)
    preprocessed(dataset, IMAGENET, cache)
    assert built(caplog) == 0
    flip_a_bit(cache_path(dataset, IMAGENET, cache).parent)
    preprocessed(dataset, IMAGENET, cache)
    assert "sample 10 is damaged" in caplog.text
    assert built(caplog) == 1


def test_an_array_in_use_survives_that_its_entry_is_built_again(dataset, cache):
    array = mapped(dataset, IMAGENET, cache)
    expected = array.sum(dtype=np.float64)
    without_manifest(cache_path(dataset, IMAGENET, cache).parent)
    preprocessed(dataset, IMAGENET, cache)
    assert array.sum(dtype=np.float64) == expected


def test_images_that_cannot_be_decoded_are_named_and_nothing_is_left(dataset, cache, tmp_path):
    broken = tmp_path / "broken.JPEG"
    broken.write_bytes(dataset.samples[0].path.read_bytes()[:3000])
    samples = (*dataset.samples[:4], Sample(broken, None), *dataset.samples[4:], Sample(broken, None))
    with pytest.raises(DatasetError, match=r"broken\.JPEG: .*cut off .* \(2 of 14 images cannot be used\)"):
        preprocessed(replace(dataset, samples=samples), IMAGENET, cache)
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_clear_line(dataset, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot keep 7 MB .* in .*file/cache: Not a directory; .*--cache"):
        preprocessed(dataset, IMAGENET, tmp_path / "file" / "cache")


CHILD = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from harness.data.imagenet import open_synthetic
from harness.errors import HarnessError
from harness.models.recipes import IMAGENET
from harness.data.sample_cache import preprocessed
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
images, cache, count, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
dataset = open_synthetic(images, count)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
try:
    print("sum", np.load(preprocessed(dataset, IMAGENET, cache, workers=2)).sum(dtype="float64"))
except HarnessError as error:
    print(type(error).__name__, error)
"""


def child(images, cache, count, limit=0):
    arguments = [sys.executable, "-c", CHILD, str(images), str(cache), str(count), str(limit)]
    return subprocess.Popen(
        arguments, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(dataset, cache):
    output, _ = child(dataset.root, cache, 12, limit=1_000_000).communicate(timeout=120)
    assert "ConfigError cannot keep 7 MB of preprocessed samples" in output
    assert "File too large" in output
    assert list(cache.iterdir()) == []


def test_builders_at_the_same_time_build_once(dataset, cache):
    builders = [child(dataset.root, cache, 12) for _ in range(3)]
    outputs = [builder.communicate(timeout=120)[0] for builder in builders]
    assert sum(output.count("\npreprocessed 12 images") for output in outputs) == 1
    assert len({output.rpartition("sum ")[2] for output in outputs}) == 1
    assert "sum " in outputs[0]
    assert [path.name for path in cache.iterdir()] == [cache_path(dataset, IMAGENET, cache).parent.name]


def test_an_interrupted_build_leaves_nothing_and_a_killed_one_is_cleaned_up(tmp_path, cache):
    count = 300
    many = open_synthetic(tmp_path / "images", count)
    for how in (signal.SIGINT, signal.SIGKILL):
        builder = child(many.root, cache, count)
        deadline = time.monotonic() + 120
        while not (cache.is_dir() and any(cache.glob(".*.partial/samples.npy"))):
            assert time.monotonic() < deadline, "no build began"
            assert builder.poll() is None, "the build ended before it could be interrupted"
            time.sleep(0.005)
        builder.send_signal(how)
        builder.communicate(timeout=120)
        assert builder.returncode != 0
        assert how == signal.SIGKILL or list(cache.iterdir()) == []
    assert mapped(many, IMAGENET, cache).shape[0] == count
    assert [path.name for path in cache.iterdir()] == [cache_path(many, IMAGENET, cache).parent.name]

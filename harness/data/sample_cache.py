"""Preprocessed samples, kept as one array per data set and recipe.

An entry is a folder `<data set>_<recipe>_<key>/` of `samples.npy` and `manifest.json`; it appears under that
name complete, or not at all. The key covers everything that decides a byte: the data set's fingerprint, the
recipe, the decoder's version, and this project's arithmetic.

What is checked before an entry is used: key, shape, dtype, file size, and digests of samples against the
manifest. All samples while the array is under 1 GiB, or when the file was touched since it was built; else a
random few, so that opening 30 GB takes no time. Anything amiss: the entry is built again.
"""

import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data import preprocess
from harness.data.dataset import Dataset
from harness.data.sample_file import SampleFile
from harness.errors import ConfigError, DatasetError
from harness.machine import file_lock, progress
from harness.machine.environment import cpu_count
from harness.machine.from_json import loads
from harness.machine.threads import in_threads
from harness.models.spec import Preprocess

logger = logging.getLogger(__name__)

_FORMAT = 2
_DIGEST_BYTES = 16
_CHECK_ALL_BELOW_BYTES = 1 << 30
_CHECKED_SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class _Manifest:
    """What `samples.npy` is and holds."""

    key: dict[str, Any]
    shape: list[int]
    dtype: str
    size_bytes: int
    modified_ns: int
    samples: str
    """BLAKE2b digests of the samples, in hex, one after the other."""
    digest: str
    """SHA-256 of `samples`: stands for the whole array."""


def preprocessed(
    dataset: Dataset, recipe: Preprocess, cache_dir: Path, *, workers: int | None = None
) -> Path:
    """The data set after `recipe`: from the cache, or made now and kept there.

    Concurrent callers wait for each other. An interrupted or failed build leaves nothing behind.

    Args:
        dataset: what to preprocess; the array has its order.
        recipe: how.
        cache_dir: where entries are kept; made if missing.
        workers: threads; one per available core if not given (OpenCV and hashing run without the GIL).

    Returns:
        A .npy file, (n, *recipe.shape) of recipe.dtype, which was checked.

    Raises:
        DatasetError: images that cannot be decoded, or are not of their annotations' size: the first, and how
            many of how many. The key covers annotations, so what is in the cache passed.
        ConfigError: the cache folder is full or cannot be written.
    """
    workers = workers or cpu_count()
    file, key = cache_path(dataset, recipe, cache_dir), _key(dataset, recipe)
    entry = file.parent
    if _is_sound(entry, key, workers):
        return file
    with _cannot_write(cache_dir, dataset, recipe):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with file_lock.hold(entry.with_name(f".{entry.name}.lock")):
            # Perhaps whoever held the lock before us has built it.
            if not _is_sound(entry, key, workers):
                _build(entry, key, dataset, recipe, workers)
    return file


def cache_path(dataset: Dataset, recipe: Preprocess, cache_dir: Path) -> Path:
    """The file of `preprocessed`, whether or not it is there."""
    text = json.dumps(_key(dataset, recipe), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return cache_dir / f"{dataset.name}_{recipe.name}_{digest[:16]}" / "samples.npy"


def _key(dataset: Dataset, recipe: Preprocess) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "dataset": dataset.fingerprint,
        "count": len(dataset.samples),
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
        "decoder": preprocess.decoder_version(),
        "code": hashlib.sha256(Path(preprocess.__file__).read_bytes()).hexdigest(),
    }


def _is_sound(entry: Path, key: dict[str, Any], workers: int) -> bool:
    """Whether the entry is there, and what it should be."""
    if not entry.is_dir():
        return False
    started = time.monotonic()
    try:
        manifest = loads(_Manifest, (entry / "manifest.json").read_text(encoding="utf-8"))
        array = _map(entry)
        defect = _defect(entry / "samples.npy", array, manifest, key, workers)
    except (OSError, ValueError, EOFError) as error:
        defect = str(error)
    if defect:
        logger.warning("cache entry %s is not sound (%s): it will be built again", entry, defect)
        return False
    logger.info("%d preprocessed samples from %s in %.1f s", len(array), entry, time.monotonic() - started)
    return True


def _map(entry: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(entry / "samples.npy", mmap_mode="r", allow_pickle=False)
    return array


def _defect(
    file: Path, array: npt.NDArray[Any], manifest: _Manifest, key: dict[str, Any], workers: int
) -> str:
    """What is wrong with an entry, or an empty string."""
    if manifest.key != key:
        return "made from something else"
    if hashlib.sha256(manifest.samples.encode()).hexdigest() != manifest.digest:
        return "its manifest is damaged"
    if list(array.shape) != manifest.shape or str(array.dtype) != manifest.dtype:
        return f"{array.shape} {array.dtype} instead of {manifest.shape} {manifest.dtype}"
    if not array.flags.c_contiguous or len(manifest.samples) != len(array) * 2 * _DIGEST_BYTES:
        return "its layout differs"
    status = file.stat()
    if status.st_size != manifest.size_bytes:
        return f"{status.st_size} bytes instead of {manifest.size_bytes}"
    indices: list[int] | range = range(len(array))
    if status.st_size > _CHECK_ALL_BELOW_BYTES and status.st_mtime_ns == manifest.modified_ns:
        indices = sorted(random.Random().sample(indices, min(_CHECKED_SAMPLES, len(indices))))
    with (
        closing(SampleFile(file)) as samples,
        closing(in_threads(lambda index: _digest(samples[index]), indices, workers)) as digests,
    ):
        for index, digest in zip(indices, progress.track(digests, "checking", len(indices)), strict=True):
            if manifest.samples[2 * _DIGEST_BYTES * index :][: 2 * _DIGEST_BYTES] != digest:
                return f"sample {index} is damaged"
    return ""


def _digest(sample: npt.NDArray[Any]) -> str:
    return hashlib.blake2b(sample.data, digest_size=_DIGEST_BYTES).hexdigest()


def _build(entry: Path, key: dict[str, Any], dataset: Dataset, recipe: Preprocess, workers: int) -> None:
    """Make the entry beside its place, then rename it; the caller holds the entry's lock."""
    partial = entry.with_name(f".{entry.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
    partial.mkdir()
    try:
        manifest = _fill(partial / "samples.npy", key, dataset, recipe, workers)
        text = json.dumps(dataclasses.asdict(manifest), indent=1)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")
        if entry.exists():
            shutil.rmtree(entry)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(file: Path, key: dict[str, Any], dataset: Dataset, recipe: Preprocess, workers: int) -> _Manifest:
    shape = (len(dataset.samples), *recipe.shape)
    dtype = np.dtype(recipe.dtype.value)
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(  # type: ignore[no-untyped-call]
            stream, {"descr": dtype.str, "fortran_order": False, "shape": shape}
        )
        stream.flush()
        offset = stream.tell()
        size_bytes = offset + int(np.prod(shape)) * dtype.itemsize
        # A full disk is noticed here, not after half an hour.
        os.posix_fallocate(stream.fileno(), 0, size_bytes)
        digests = _write_samples(stream.fileno(), offset, dataset, recipe, workers)
        with progress.waiting("writing the samples to disk"):
            os.fsync(stream.fileno())
    samples = "".join(digests)
    return _Manifest(
        key=key,
        shape=list(shape),
        dtype=str(dtype),
        size_bytes=size_bytes,
        modified_ns=file.stat().st_mtime_ns,
        samples=samples,
        digest=hashlib.sha256(samples.encode()).hexdigest(),
    )


def _write_samples(
    descriptor: int, offset: int, dataset: Dataset, recipe: Preprocess, workers: int
) -> list[str]:
    """Preprocess everything, in any order, each sample to its place; return the digests in order."""
    # Of images without true objects the sizes were read from the files.
    sizes_px = dataset.coco.sizes_px if dataset.coco and dataset.has_labels else None

    def make(index: int) -> str | DatasetError:
        try:
            annotated_px = sizes_px[index] if sizes_px else None
            sample = preprocess.load(dataset.samples[index].path, recipe, annotated_px)
        except DatasetError as error:
            return error
        _write_at(descriptor, sample.data.cast("B"), offset + index * sample.nbytes)
        return _digest(sample)

    count = len(dataset.samples)
    started = time.monotonic()
    with closing(in_threads(make, range(count), workers)) as made:
        results = list(progress.track(made, f"preprocessing {recipe.name}", count))
    failures = [result for result in results if isinstance(result, DatasetError)]
    if failures:
        raise DatasetError(f"{failures[0]} ({len(failures)} of {count} images cannot be used)")
    seconds = time.monotonic() - started
    logger.info("preprocessed %d images in %.1f s (%.0f/s)", count, seconds, count / seconds)
    return [result for result in results if isinstance(result, str)]


def _write_at(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


@contextmanager
def _cannot_write(cache_dir: Path, dataset: Dataset, recipe: Preprocess) -> Iterator[None]:
    """Turn the operating system's refusal into one line."""
    try:
        yield
    except OSError as error:
        per_sample = int(np.prod(recipe.shape)) * np.dtype(recipe.dtype.value).itemsize
        megabytes = len(dataset.samples) * per_sample / 1e6
        raise ConfigError(
            f"cannot keep {megabytes:.0f} MB of preprocessed samples in {cache_dir}: "
            f"{error.strerror or error}; free space there or choose another folder with --cache"
        ) from error

"""Null models: entries like any other, so that the same harness measures them, with nothing to compute."""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.dataset import Dataset, Sample
from harness.models import manifest, model_config
from harness.models.manifest import Manifest, Parity
from harness.models.model_config import ServerSettings
from harness.models.platforms import Platform
from harness.models.spec import DType, Layout, Preprocess, Resize, TensorSpec, Variant
from harness.run.config.resolution import resolve
from harness.run.config.tuning import Tuning
from harness.run.preparation import Prepared

_SAMPLES = 64
_OUTPUT = "NULL_OUTPUT"
_SOURCE = "harness.bench.null.model"
# What makes the server cheapest, so that it holds the client back least: with 64 in flight, on two cores that
# others used too, 5100 queries/s without a delay and 6700 with it; a second instance made no difference.
_MAX_BATCH = 32
_INSTANCES = 1
_QUEUE_DELAY_US = 1000
"""With several requests in flight, each of which takes longer than this anyway."""


def write_entry(
    repository: Path,
    name: str,
    *,
    side_px: int,
    in_flight: int,
    transport: str,
    delay_us: int = 0,
    has_batches: bool = False,
) -> Prepared:
    """Add an entry that takes images of `side_px` x `side_px` x 3 float32, and its samples.

    Args:
        repository: of the server.
        name: of the entry.
        side_px: 1 for the smallest request there is.
        in_flight: how many requests it will have to answer at once.
        transport: how the harness is to send samples: shm or grpc.
        delay_us: how long each batch is to take.
        has_batches: whether requests may have several samples.
    """
    recipe = Preprocess(name, Resize.STRETCH_LINEAR, (side_px, side_px), (), Layout.NCHW)
    variant = Variant(
        # The nearest there is: nothing but the configuration's backend, set below, derives from it.
        platform=Platform.ONNXRUNTIME,
        input=TensorSpec("NULL_INPUT", DType.FP32, recipe.shape),
        outputs=(TensorSpec(_OUTPUT, DType.INT64, ()),),
        preprocess=recipe,
        max_batch_size=_MAX_BATCH,
        source="none",
        tolerance=0.0,
    )
    source = _source()
    entry_dir = repository / name
    (entry_dir / "1").mkdir(parents=True)
    (entry_dir / "1" / "model.py").write_text(source, encoding="utf-8")
    parameters = {"delay_us": str(delay_us)} if delay_us else {}
    parameters |= {"is_counting": "yes"} if has_batches else {}
    config_text = _config(name, variant, in_flight, parameters)
    (entry_dir / "config.pbtxt").write_text(config_text, encoding="utf-8")
    samples = np.random.default_rng(0).random((_SAMPLES, *recipe.shape), np.float32)
    np.save(entry_dir / "samples.npy", samples)
    answers: dict[str, Any] = {"input": samples[:2], f"output:{_OUTPUT}": np.zeros((2, 1), np.int64)}
    np.savez(entry_dir / manifest.GOLDEN_NAME, **answers)
    digest = hashlib.sha256(source.encode()).hexdigest()
    facts = Manifest(name, name, "none", "", digest, variant, Parity(0, 0.0, 0.0, 1.0), digest, {})
    manifest.save(facts, entry_dir)
    # Of a model's settings only those of the test itself are read.
    config = resolve({"model": "mobilenet", "platform": Platform.ONNXRUNTIME.value, "transport": transport})
    nobody = tuple(Sample(entry_dir / "samples.npy", None) for _ in range(_SAMPLES))
    dataset = Dataset(name, entry_dir, nobody, digest, is_complete=False, has_labels=False)
    return Prepared(config, facts, entry_dir, dataset, entry_dir / "samples.npy")


def tuning(in_flight: int) -> Tuning:
    """So many requests in flight, each of one sample."""
    return Tuning(_settings(in_flight), client_batch=1, in_flight=in_flight)


def _settings(in_flight: int) -> ServerSettings:
    # A single request has no others to be joined with: as `tuning` does, spare it the batcher's thread.
    return ServerSettings(
        _INSTANCES,
        max_batch_size=min(in_flight, _MAX_BATCH),
        max_queue_delay_us=_QUEUE_DELAY_US if in_flight > 1 else 0,
        device="cpu",
    )


def _source() -> str:
    spec = importlib.util.find_spec(_SOURCE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _config(name: str, variant: Variant, in_flight: int, parameters: Mapping[str, str]) -> str:
    settings = dataclasses.replace(_settings(in_flight), parameters=tuple(parameters.items()))
    config = model_config.model_config(name, variant, settings)
    config.backend, config.platform, config.default_model_filename = "python", "", "model.py"
    config.ClearField("model_warmup")
    return model_config.to_text(config)

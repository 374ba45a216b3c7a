"""Where no framework is installed, an entry is taken as another machine made it, or it is said why not."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ConversionError
from harness.machine import paths
from harness.models import MODELS, get_variant, manifest
from harness.models.manifest import GOLDEN_NAME, OFFICIAL, Manifest, Parity
from harness.models.platforms import Platform
from harness.run import preparation
from harness.run.config.resolution import resolve
from harness.run.entries import elsewhere


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the small client needs of an entry of resnet50."""
    monkeypatch.setattr(elsewhere, "lacking", lambda tools: list(tools)[:1])
    monkeypatch.setattr(paths, "MODEL_REPOSITORY", tmp_path)
    folder = tmp_path / "resnet50_onnxruntime"
    folder.mkdir()
    variant = get_variant(MODELS["resnet50"], Platform.ONNXRUNTIME)
    made = Manifest(
        entry=folder.name, model="resnet50", weights=OFFICIAL, weights_file="/elsewhere/resnet50.pb",
        weights_sha256="0", variant=variant, parity=Parity(1, 0.0, 0.0, 1.0), graph_sha256="0", tools={},
    )  # fmt: skip
    manifest.save(made, folder)
    (folder / GOLDEN_NAME).touch()
    return folder


def asked(**words: str) -> Path:
    return preparation._convert(resolve({"model": "resnet50", "platform": "onnxruntime", **words}))


def test_an_entry_is_taken_as_it_was_made(entry: Path) -> None:
    assert asked() == asked(weights="official") == entry


def test_other_weights_are_refused(entry: Path) -> None:
    with pytest.raises(ConversionError, match="was made from official weights, not seeded"):
        asked(weights="seeded")


def test_a_file_of_the_users_takes_the_frameworks(entry: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").touch()
    with pytest.raises(ConversionError, match=r"mine\.onnx cannot be made .*\[onnxruntime\]"):
        asked(weights=str(tmp_path / "mine.onnx"))


def test_an_entry_of_another_version_is_refused(entry: Path) -> None:
    found = manifest.load(entry)
    manifest.save(replace(found, variant=replace(found.variant, max_batch_size=7)), entry)
    with pytest.raises(ConversionError, match=r"was made by another version.*\[onnxruntime\]"):
        asked()


@pytest.mark.parametrize("name", [GOLDEN_NAME, manifest.MANIFEST_NAME])
def test_it_is_said_what_to_copy_or_to_install(entry: Path, name: str) -> None:
    (entry / name).unlink()
    with pytest.raises(ConversionError, match=r"copy MANIFEST\.json and golden\.npz .*\[onnxruntime\]"):
        asked()

"""MANIFEST.json: written and read back equal, for every model on every platform; damage is one error."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.errors import ConversionError
from harness.models import MODELS, manifest
from harness.models.manifest import Manifest, Parity
from harness.models.platforms import Platform
from harness.models.spec import Variant


def made_of(variant: Variant) -> Manifest:
    return Manifest(
        entry="a_b",
        model="a",
        weights="seeded",
        weights_file="/weights/a",
        weights_sha256="1" * 64,
        variant=variant,
        parity=Parity(8, 1.5e-6, 1e-5, 1.0),
        graph_sha256="2" * 64,
        tools={"tensorflow": "2.21.0"},
    )


@pytest.mark.parametrize(
    ("model", "platform"), [(name, platform) for name, spec in MODELS.items() for platform in spec.variants]
)
def test_it_is_read_back_as_it_was_written(model: str, platform: Platform, tmp_path: Path) -> None:
    written = made_of(MODELS[model].variants[platform])
    manifest.save(written, tmp_path)
    assert manifest.load(tmp_path) == written
    manifest.check_unchanged(written, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"parity": {"samples": 8}},
        {"variant": None},
        {"weights_sha256": 7},
        {"tools": []},
        {"written_by": "somebody else"},
    ],
)
def test_a_damaged_one_is_an_error_that_says_what_to_do(change: dict[str, object], tmp_path: Path) -> None:
    variant = MODELS["mobilenet"].variants[Platform.ONNXRUNTIME]
    manifest.save(made_of(variant), tmp_path)
    file = tmp_path / manifest.MANIFEST_NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConversionError, match=r"MANIFEST.json is damaged \(.*; convert the model again"):
        manifest.load(tmp_path)


def test_an_entry_that_was_never_converted_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is missing: convert the model first"):
        manifest.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"entry": "a_b"}', "[" * 100_000])
def test_a_text_that_is_no_manifest_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / manifest.MANIFEST_NAME).write_text(text)
    with pytest.raises(ConversionError, match=r"MANIFEST.json is damaged \(.*; convert the model again"):
        manifest.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "3" * 64},
        {"graph_sha256": "3" * 64},
        {"weights": "official"},
        {"tools": {"tensorflow": "2.22.0"}},
        {"parity": Parity(8, 1.5e-6, 1e-5, 0.99)},
        {"variant": MODELS["mobilenet"].variants[Platform.OPENVINO]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_entry_that_was_converted_again_is_not_the_one_that_was_measured(
    change: dict[str, object], tmp_path: Path
) -> None:
    measured = made_of(MODELS["mobilenet"].variants[Platform.ONNXRUNTIME])
    manifest.save(dataclasses.replace(measured, **change), tmp_path)
    with pytest.raises(
        ConversionError, match=r"converted again by another process; .* seeded weights of sha256:1{16}…: run"
    ):
        manifest.check_unchanged(measured, tmp_path)


def test_a_folders_digest_tells_names_and_contents_and_no_more(tmp_path: Path) -> None:
    def digest_of(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, content in files.items():
            file = folder / name.replace("_", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return manifest.digest(folder)

    one = digest_of(graph="a", variables_0="b")
    assert digest_of(variables_0="b", graph="a") == one
    others = [
        digest_of(graph="a"),
        digest_of(graph="b", variables_0="a"),
        digest_of(graph="a", variables_1="b"),
        digest_of(graph="a", v_0="b"),
        digest_of(graph="ab", variables_0=""),
    ]
    assert len({one, *others}) == 6


def test_a_files_digest_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("abc")
    # FIPS 180-2, appendix B.1.
    assert manifest.digest(tmp_path / "model.onnx") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )

"""A client without any framework asks a real server: samples, accuracy by labels, the report."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.data import preprocess, synthetic
from harness.machine import paths
from harness.models import manifest
from harness.models.manifest import GOLDEN_NAME, OFFICIAL
from harness.server import lifecycle
from tests import small_client

MODEL = ("--model", "mobilenet", "--platform", "onnxruntime")
COUNT = 24


def run(*words: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def entry() -> Path:
    """Made here, where the frameworks are."""
    made = run("converters", *MODEL, "--weights", "seeded", "--print-entry", cwd=paths.PROJECT_ROOT)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


@pytest.fixture(scope="module")
def photographs(entry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with labels, which are what the source framework sees in them."""
    folder = tmp_path_factory.mktemp("images")
    images = synthetic.draw_set(folder, COUNT, workers=2)
    recipe = manifest.load(entry).variant.preprocess
    np.save(folder / "samples.npy", np.stack([preprocess.load(image, recipe) for image in images]))
    asked = run(
        *("converters.source", "--entry", entry, "--samples", folder / "samples.npy"),
        *("--output", folder / "labels.npy"),
        cwd=paths.PROJECT_ROOT,
    )
    assert asked.returncode == 0, asked.stderr
    labels = np.load(folder / "labels.npy").tolist()
    assert min(labels) >= 0
    lines = [f"{image.name} {label}\n" for image, label in zip(images, labels, strict=True)]
    (folder / "val_map.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> dict[str, str]:
    return small_client.install(tmp_path / "site")


def take_along(entry: Path, site: Path, weights: str) -> None:
    """What the small client needs of an entry; labels are the truth for weights that are not seeded."""
    folder = site / "model_repository" / entry.name
    folder.mkdir(parents=True)
    shutil.copy(entry / GOLDEN_NAME, folder)
    manifest.save(dataclasses.replace(manifest.load(entry), weights=weights), folder)


def test_accuracy_by_labels_and_the_report_take_no_framework(
    entry: Path,
    photographs: Path,
    repository_server: lifecycle.ServerInfo,
    small: dict[str, str],
    tmp_path: Path,
) -> None:
    take_along(entry, tmp_path / "site", OFFICIAL)
    asked = run(
        *(
            "harness",
            *MODEL,
            "--scenario",
            "Offline",
            "--mode",
            "Accuracy",
            "--url",
            repository_server.grpc_url,
        ),
        *("--dataset-path", photographs, "--output", tmp_path / "results"),
        cwd=tmp_path,
        env=small,
    )
    assert asked.returncode == 0, asked.stderr
    (folder,) = (tmp_path / "results").iterdir()
    results = json.loads((folder / "results.json").read_text())
    # Of samples that were made without OpenCV, by labels of samples that were made with it.
    assert results["accuracy"]["value"] == 1.0
    report = folder / "report.html"
    assert report.is_file()
    report.unlink()
    again = run("harness.report", folder, cwd=tmp_path, env=small)
    assert again.returncode == 0, again.stderr
    assert report.is_file()


def test_a_truth_that_takes_a_framework_is_missed_before_anything_is_measured(
    entry: Path,
    photographs: Path,
    repository_server: lifecycle.ServerInfo,
    small: dict[str, str],
    tmp_path: Path,
) -> None:
    take_along(entry, tmp_path / "site", manifest.SEEDED)
    asked = run(
        *("harness", *MODEL, "--scenario", "Offline", "--time", "1", "--accuracy"),
        *(
            "--url",
            repository_server.grpc_url,
            "--dataset-path",
            photographs,
            "--output",
            tmp_path / "results",
        ),
        cwd=tmp_path,
        env=small,
    )
    assert asked.returncode == 2, asked.stderr
    assert "pip install '.[" in asked.stderr.splitlines()[-1]
    assert not list((tmp_path / "results").iterdir())

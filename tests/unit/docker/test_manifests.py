"""docker/kubernetes/ as it is written, by Kubernetes' own schemas; needs no kubectl to put it together."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness.machine.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docker" / "kubernetes"
OTHERS = ("Kustomization", "ServiceMonitor", "ServingRuntime", "InferenceService")
"""Kinds of which Kubernetes has no schema."""


def resources() -> list[tuple[Path, dict[str, Any]]]:
    """All that is whole: what a kustomization patches with is a part."""
    found = []
    for kustomization in sorted(FOLDER.rglob("kustomization.yaml")):
        for name in yaml.safe_load(kustomization.read_text())["resources"]:
            file = kustomization.parent / name
            if file.is_file():
                found += [(file, document) for document in yaml.safe_load_all(file.read_text())]
    return found


@pytest.mark.parametrize("release", ["1.27", "1.37"])
def test_every_manifest_is_valid_as_it_is_written(release: str) -> None:
    kinds = set()
    for file, document in resources():
        kinds.add(document["kind"])
        if document["kind"] not in OTHERS:
            try:
                kubernetes_validate.validate(document, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{file}: {error}")
    assert {"Deployment", "Service", "Job", "NetworkPolicy", "HorizontalPodAutoscaler"} <= kinds


def test_no_file_is_left_out_of_the_kustomizations() -> None:
    named = {file for file, _ in resources()}
    for file in FOLDER.rglob("*.yaml"):
        kustomization = (file.parent / "kustomization.yaml").read_text()
        # The values of another project's chart.
        assert (
            file in named
            or file.name in (*kustomization.split(), "kustomization.yaml")
            or (file.name == "adapter.values.yaml")
        ), file

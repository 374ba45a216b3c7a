"""What the manifests have of others than Kubernetes, by the schemas that these publish.

They are in packages on PyPI that nothing else here needs, so they are installed for the test: the Prometheus
operator's definitions, of which cloudcoil generates its models, and KServe's, from which its SDK is made.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.server.kubernetes.manifests import Choice, render

if not (shutil.which("kubectl") or shutil.which("kustomize")):
    pytest.skip("neither kubectl nor kustomize is installed", allow_module_level=True)

OPERATOR = "cloudcoil.models.prometheus-operator==0.80.1.0"
KSERVE = "kserve==0.21.0"

Document = dict[str, Any]
Fields = dict[str, str]
"""Types by names, as in a manifest."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both are; of KServe's SDK, whose other needs contradict ours, nothing but its own files."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    for words in ([OPERATOR], ["--no-deps", KSERVE]):
        done = subprocess.run([*pip, "--target", folder, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def one(kind: str, overlay: str) -> Document:
    (found,) = (each for each in yaml.safe_load_all(render(Choice(overlay), "a key")) if each["kind"] == kind)
    return dict(found)


def understood(monitor: Document, site: Path) -> Document | str:
    """What the definition of a ServiceMonitor knows of it; or what is wrong."""
    program = (
        "import json, sys; from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor;"
        "print(ServiceMonitor.model_validate(json.load(sys.stdin)).model_dump_json(by_alias=True,"
        "exclude_unset=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(monitor),
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_the_operator_understands_all_that_the_monitor_says(site: Path) -> None:
    monitor = one("ServiceMonitor", "hpa")
    assert understood(monitor, site) == monitor
    (endpoint,) = monitor["spec"]["endpoints"]
    endpoint["intervals"] = endpoint.pop("interval")
    assert understood(monitor, site) != monitor
    endpoint["interval"] = "5 apples"
    assert "spec.endpoints.0.interval" in str(understood(monitor, site))


def kserve_kinds(site: Path) -> dict[str, Fields]:
    """The fields of each class of KServe's SDK."""
    found = {}
    for file in (site / "kserve" / "models").glob("*.py"):
        for each in ast.parse(file.read_text()).body:
            if isinstance(each, ast.ClassDef):
                tables = {
                    node.targets[0].id: ast.literal_eval(node.value)
                    for node in each.body
                    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                    if node.targets[0].id in ("openapi_types", "attribute_map")
                }
                names = tables["attribute_map"]
                found[each.name] = {names[name]: kind for name, kind in tables["openapi_types"].items()}
    return found


def mistakes(value: Any, kind: str, kinds: dict[str, Fields], at: str) -> Iterator[str]:
    """Fields that are not known there, or of another type; Kubernetes' own are its schemas' to judge."""
    if kind.startswith("list["):
        for index, each in enumerate(value):
            yield from mistakes(each, kind[len("list[") : -1], kinds, f"{at}[{index}]")
    elif kind.startswith("dict("):
        for name, each in value.items():
            yield from mistakes(each, kind.partition(", ")[2][:-1], kinds, f"{at}.{name}")
    elif kind in kinds:
        for name, each in value.items():
            if name not in kinds[kind]:
                yield f"{at}.{name} is unknown to {kind}"
            else:
                yield from mistakes(each, kinds[kind][name], kinds, f"{at}.{name}")
    elif kind in ("str", "int", "bool") and type(value).__name__ != kind:
        yield f"{at} is no {kind}"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("ServingRuntime", "V1alpha1ServingRuntime"), ("InferenceService", "V1beta1InferenceService")],
)
def test_kserve_knows_all_fields_of_its_kinds(kind: str, name: str, site: Path) -> None:
    kinds, document = kserve_kinds(site), one(kind, "kserve")
    assert list(mistakes(document, name, kinds, kind)) == []
    document["spec"]["predictors"] = 3
    assert list(mistakes(document, name, kinds, kind)) == [f"{kind}.spec.predictors is unknown to {name}Spec"]

"""The manifests of docker/kubernetes/ with what a user chose, by kustomize; no cluster is asked."""

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, ServerError
from harness.machine.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docker" / "kubernetes"
OVERLAYS = ("gpu", "hpa", "kserve")
ACCESS_MODES = ("ReadWriteMany", "ReadWriteOnce")
PART_OF = "app.kubernetes.io/part-of=mlperf-triton-vision"
"""The label of all that is ours."""
SERVERS, JOB, READER = "triton", "bench", "results"
"""Names in docker/kubernetes/base."""
_MODELS = "model-repository"
"""The claim that client and servers share."""
_SECRET = "triton-control"
_IMAGES = ("mlperf-triton-vision-server", "mlperf-triton-vision-client")


@dataclass(frozen=True)
class Choice:
    """What a user may say of the manifests."""

    overlay: str = ""
    """Empty, or one of `OVERLAYS`."""
    replicas: int | None = None
    """None: what the manifests say."""
    registry: str = ""
    """What stands before the images' names."""
    tag: str = ""
    benchmark: Sequence[str] = ()
    """Options of the client, in the place of the manifests' ones."""
    storage_class: str = ""
    """Of the volumes; empty: the cluster's default."""
    access_mode: str = ""
    """Of the volume that all pods share, one of `ACCESS_MODES`; empty: what the manifests say."""
    data_claim: str = ""
    """A claim that has a data set, for the client; empty: none."""

    def __post_init__(self) -> None:
        """Reject what contradicts itself."""
        if self.replicas is not None and self.overlay == "hpa":
            raise ConfigError("--replicas contradicts --overlay hpa, where the autoscaler says how many")


def render(choice: Choice, key: str) -> str:
    """All manifests, as YAML.

    Args:
        choice: the user's.
        key: of the servers' control.

    Raises:
        ServerError: there is no kustomize, or it fails.
        ConfigError: an installed package has no manifests.
    """
    if not FOLDER.is_dir():
        raise ConfigError(f"there are no manifests at {FOLDER}: this command needs a checkout of the project")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "key").write_text(key, encoding="ascii")
        chosen = FOLDER / "overlays" / choice.overlay if choice.overlay else FOLDER / "base"
        # Kustomize takes no absolute paths; and JSON is YAML.
        text = json.dumps(_kustomization(choice, os.path.relpath(chosen, folder)))
        (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
        built = subprocess.run([*_kustomize(), name], capture_output=True, text=True, check=False)
    if built.returncode:
        raise ServerError(f"kustomize fails: {_one_line(built.stderr)}")
    return built.stdout


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe()


def key_in(listed: str) -> str | None:
    """The key in what `kubectl get secret --output json` lists of ours; None where there is none yet.

    The newest: where the key was changed, an older Secret may be left over.
    """
    items = sorted(json.loads(listed)["items"], key=lambda item: str(item["metadata"]["creationTimestamp"]))
    return base64.b64decode(items[-1]["data"]["key"]).decode("ascii") if items else None


def of_kinds(text: str, kinds: Collection[str]) -> str:
    """Those of the manifests that are of some kinds."""
    return _joined(each for each in _documents(text) if kind_of(each) in kinds)


def not_of_kinds(text: str, kinds: Collection[str]) -> str:
    """Those of the manifests that are of other kinds."""
    return _joined(each for each in _documents(text) if kind_of(each) not in kinds)


def kind_of(document: str) -> str:
    """Of one manifest, as kustomize writes it."""
    found = re.search(r"^kind: (\w+)$", document, re.MULTILINE)
    return found[1] if found else ""


def _documents(text: str) -> list[str]:
    return re.split(r"^---\n", text, flags=re.MULTILINE)


def _joined(documents: Iterable[str]) -> str:
    return "---\n".join(documents)


def _kustomization(choice: Choice, source: str) -> Mapping[str, Any]:
    ours, _, label = PART_OF.partition("=")
    images = [
        {
            "name": image,
            **({"newName": f"{choice.registry.rstrip('/')}/{image}"} if choice.registry else {}),
            **({"newTag": choice.tag} if choice.tag else {}),
        }
        for image in _IMAGES
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [source],
        # Its name has a digest of the key, so that servers with another key are other servers.
        "secretGenerator": [{"name": _SECRET, "files": ["key"], "options": {"labels": {ours: label}}}],
        "images": images,
        "patches": [*_replicas(choice), *_arguments(choice), *_storage(choice), *_data(choice)],
    }


def _replicas(choice: Choice) -> list[Mapping[str, Any]]:
    if choice.replicas is None:
        return []
    if choice.overlay == "kserve":
        limits = ("/spec/predictor/minReplicas", "/spec/predictor/maxReplicas")
        return [_patch("InferenceService", dict.fromkeys(limits, choice.replicas))]
    return [_patch("Deployment", {"/spec/replicas": choice.replicas})]


def _arguments(choice: Choice) -> list[Mapping[str, Any]]:
    path = "/spec/template/spec/containers/0/args"
    return [_patch("Job", {path: list(choice.benchmark)})] if choice.benchmark else []


def _storage(choice: Choice) -> list[Mapping[str, Any]]:
    claim, found = "PersistentVolumeClaim", []
    if choice.storage_class:
        found.append(_patch(claim, {"/spec/storageClassName": choice.storage_class}, op="add"))
    if choice.access_mode:
        found.append(_patch(claim, {"/spec/accessModes": [choice.access_mode]}, name=_MODELS))
    return found


def _data(choice: Choice) -> list[Mapping[str, Any]]:
    if not choice.data_claim:
        return []
    pod, name = "/spec/template/spec", "data"
    claim = {"claimName": choice.data_claim, "readOnly": True}
    added = {
        f"{pod}/volumes/-": {"name": name, "persistentVolumeClaim": claim},
        f"{pod}/containers/0/volumeMounts/-": {"name": name, "mountPath": "/data", "readOnly": True},
        f"{pod}/containers/0/env/-": {"name": "DATA_DIR", "value": "/data"},
    }
    return [_patch("Job", added, op="add")]


def _patch(kind: str, values: Mapping[str, Any], *, op: str = "replace", name: str = "") -> Mapping[str, Any]:
    changes = [{"op": op, "path": path, "value": value} for path, value in values.items()]
    return {"target": {"kind": kind, **({"name": name} if name else {})}, "patch": json.dumps(changes)}


def _kustomize() -> list[str]:
    """The command that builds a folder."""
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    raise ServerError("neither kubectl nor kustomize is installed: one of them puts the manifests together")


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "it says nothing"

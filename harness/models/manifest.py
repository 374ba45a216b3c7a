"""MANIFEST.json of a model repository entry: what was exported, from which weights, and how exactly.

Written by the converters after the export was verified; read by the harness, which takes the tensors of a
user's own file from it, and refuses an entry whose files are not the ones that were verified.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from harness.errors import ConversionError
from harness.machine.from_json import loads
from harness.machine.paths import weights_dir
from harness.models.platforms import ending_of
from harness.models.spec import Variant, Weights

MANIFEST_NAME = "MANIFEST.json"
GOLDEN_NAME = "golden.npz"
"""Beside the manifest: `input` (n, ...) and the source's answers. Classifiers: per requested output,
`output:<name>` (n, ...). Detectors: `detections`, (m, 7) records of `harness.answers.payloads`."""
GOLDEN_DETECTIONS = "detections"

USER_FILE = "file"


class WeightsWord(StrEnum):
    """Which weights to use, where it is not a file of the user's own."""

    AUTO = "auto"
    """The published ones if they were fetched, else seeded ones."""
    SEEDED = "seeded"
    OFFICIAL = "official"


AUTO, SEEDED, OFFICIAL = WeightsWord


def is_user_file(weights: str) -> bool:
    """Whether what was asked for is the path of a user's own file."""
    return weights not in tuple(WeightsWord)


def is_fetched(weights: Weights) -> bool:
    """Whether the published file, or what was unpacked from it, is in the weights folder."""
    names = [weights.filename]
    if weights.member:
        names.append(f"{PurePosixPath(weights.member).name}.sha256")
    return any((weights_dir() / name).exists() for name in names)


@dataclass(frozen=True)
class Parity:
    """How far the export is from its source on fixed inputs."""

    samples: int
    max_abs_diff: float
    """Over the floating-point outputs and a quantised network's scores, or over the scores and corners of
    detections found by both; of several outputs, that of the one nearest to its tolerance."""
    tolerance: float
    """What is allowed of that output."""
    agreement: float
    """Share of samples with the same arg-max, which must be 1.0, or of detections found by both
    (`harness.answers.agreement`)."""


@dataclass(frozen=True)
class Manifest:
    """One published export."""

    entry: str
    model: str
    """Name in `harness.models.MODELS`; for a user's own file, the model whose task it shares."""
    weights: str
    """`seeded`, `official` or `file`."""
    weights_file: str
    """Absolute path of the file that the weights came from."""
    weights_sha256: str
    variant: Variant
    parity: Parity
    graph_sha256: str
    """Digest of the exported file or folder (see `digest`)."""
    tools: dict[str, str]
    """Versions of what made it."""


def digest(path: Path) -> str:
    """SHA-256 of a file (OpenVINO's with its weights), or of a folder's relative file names and contents."""
    result = hashlib.sha256()
    for file in files_of(path):
        if path.is_dir():
            result.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                result.update(block)
    return result.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The files that a model's file or folder consists of, but for an ONNX file's weights beside it."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    weights = path.with_suffix(".bin")
    return [path, weights] if ending_of(path) == ".xml" and weights.is_file() else [path]


def save(manifest: Manifest, entry_dir: Path) -> None:
    """Write the manifest into an entry's folder."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2)
    (entry_dir / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def load(entry_dir: Path) -> Manifest:
    """Read the manifest of an entry.

    Raises:
        ConversionError: the entry was never converted, or its manifest is damaged.
    """
    path = entry_dir / MANIFEST_NAME
    try:
        return loads(Manifest, path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConversionError(f"{path} is missing: convert the model first (python -m converters)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConversionError(f"{path} is damaged ({error}); convert the model again with --force") from error


def check_unchanged(expected: Manifest, entry_dir: Path) -> None:
    """See that an entry is still the one that a run was prepared with.

    Raises:
        ConversionError: another process has converted it again, from other weights or with other tools.
    """
    if load(entry_dir) != expected:
        raise ConversionError(
            f"{entry_dir} was converted again by another process; what was measured would not be "
            f"{expected.weights} weights of sha256:{expected.weights_sha256[:16]}…: run again"
        )

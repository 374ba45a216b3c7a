"""Which file an entry is made from: published weights, seeded ones, or a user's own."""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from converters import command
from converters.conversion import model_files
from converters.fetch import notes
from converters.fetch.published import fetch_weights
from converters.networks import seeded_files
from converters.networks.seeds import RECIPE_VERSION
from harness.data import synthetic
from harness.errors import ConfigError, ConversionError
from harness.machine import file_lock, progress
from harness.machine.files import is_lfs_pointer, whole
from harness.machine.paths import absolute, weights_dir
from harness.models import manifest
from harness.models.manifest import OFFICIAL, SEEDED, USER_FILE
from harness.models.platforms import Platform, ending_of
from harness.models.spec import ModelSpec, Variant, Weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFile:
    """The file, where it is from, and its digest."""

    kind: str
    """`seeded`, `official` or `file`."""
    path: Path
    sha256: str


def official(spec: ModelSpec, variant: Variant) -> SourceFile:
    """Fetch the published weights, unless they are there."""
    path = fetch_weights(spec.sources[variant.source], weights_dir())
    return SourceFile(OFFICIAL, path, manifest.digest(path))


def loose_member(weights: Weights) -> Path | None:
    """The published file where it lies in the weights folder without the archive that it is verified by."""
    path = weights_dir() / PurePosixPath(weights.member).name
    return path if weights.member and path.is_file() and not manifest.is_fetched(weights) else None


def seeded(spec: ModelSpec, variant: Variant) -> SourceFile:
    """Make the seeded weights in the published file's format, unless they are there.

    Raises:
        ConversionError: the weights folder cannot be written.
    """
    suffix = {"pytorch": ".pth", "onnx": ".onnx"}.get(variant.source, ".pb")
    version = f"v{RECIPE_VERSION}.{synthetic.VERSION}"
    path = weights_dir() / "seeded" / f"{spec.name}-{variant.source}-{version}{suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with file_lock.hold(lock), command.on_signal(lambda: lock.unlink(missing_ok=True)):
            sha256 = _recorded(path)
            if sha256 is None:
                logger.info("making seeded weights for %s (%s)", spec.title, variant.source)
                with progress.waiting(f"making {path.name}"):
                    sha256 = _build(spec, variant, path)
    except OSError as error:
        raise ConversionError(
            f"cannot write seeded weights to {path.parent}: {error.strerror or error}; "
            "set MODEL_DIR to a folder that can be written"
        ) from error
    return SourceFile(SEEDED, path, sha256)


def own_file(path: Path, spec: ModelSpec, platform: Platform) -> SourceFile:
    """Take a user's file.

    Raises:
        ConfigError: no such file, or none that `platform` can be served from.
    """
    path = absolute(path)
    if not path.exists():
        raise ConfigError(f"{path} does not exist; --weights takes auto, seeded, official or a file")
    if not accepts(spec, platform, path):
        known = ", ".join(suffix or "a SavedModel folder" for suffix in _suffixes(spec, platform))
        raise ConfigError(f"{path} cannot be served by {platform} as {spec.name}, which takes {known}")
    for file in model_files.files_of(path):
        if file.is_file() and is_lfs_pointer(file):
            raise ConfigError(f"{file} is a Git LFS pointer, not the model: run `git lfs pull` there")
    return SourceFile(USER_FILE, path, model_files.digest(path))


def accepts(spec: ModelSpec, platform: Platform, path: Path) -> bool:
    """Whether the file's kind is one that the model's entries of `platform` are made from."""
    return ("" if path.is_dir() else ending_of(path) or "none") in _suffixes(spec, platform)


def _suffixes(spec: ModelSpec, platform: Platform) -> tuple[str, ...]:
    """What entries of the platform are made from, and what the model's own are."""
    suffixes = platform.facts.made_from
    is_from_onnx = spec.variants[platform].source == "onnx" and ".onnx" not in suffixes
    return (*suffixes, ".onnx") if is_from_onnx else suffixes


def _recorded(path: Path) -> str | None:
    """Digest of a finished seeded file; None where it is missing or not what was made."""
    if not path.exists() or not notes.note_of(path).exists():
        return None
    sha256 = manifest.digest(path)
    if notes.read(path).get(path.name) == sha256:
        return sha256
    logger.warning("%s is damaged; it is made again", path)
    return None


def _build(spec: ModelSpec, variant: Variant, path: Path) -> str:
    with whole(path, is_locked=True) as partial, command.on_signal(lambda: partial.unlink(missing_ok=True)):
        seeded_files.build(spec.name, variant.source, partial)
        sha256 = manifest.digest(partial)
    notes.write(path, {path.name: sha256})
    return sha256

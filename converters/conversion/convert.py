"""One conversion: weights, export, comparison, publication."""

import hashlib
import itertools
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from converters.conversion import candidate, model_files, own_files, own_inputs, publish, weights
from converters.conversion.own_files import NOTHING_SAID, Said
from converters.conversion.parity import Comparison
from converters.conversion.weights import SourceFile
from harness.data import synthetic
from harness.errors import ConfigError, ConversionError
from harness.machine import progress
from harness.machine.extras import how_to_install
from harness.machine.paths import absolute
from harness.models import get_variant, in_use, manifest, own_recipes
from harness.models.manifest import AUTO, GOLDEN_NAME, OFFICIAL, USER_FILE, Manifest, is_user_file
from harness.models.model_config import model_config, to_text
from harness.models.platforms import Platform, ending_of
from harness.models.recipes import is_for
from harness.models.spec import ModelSpec, Nms, Task, Variant

logger = logging.getLogger(__name__)

CODE_VERSION = 3
"""Raise it when a change here makes other entries from the same weights."""

_DISTRIBUTIONS = {"tensorflow": ("tensorflow-cpu", "tensorflow")}
"""A package may go by several names."""


@dataclass(frozen=True)
class Request:
    """What is to be converted, and where to."""

    spec: ModelSpec
    platform: Platform
    weights: str
    """`auto`, `seeded`, `official`, or a file's path."""
    repository: Path
    said: Said = NOTHING_SAID
    """What the user says of a file of their own."""
    entry: str = ""
    """Empty for the default name."""
    nms: Nms = Nms.CORRECTED
    """How overlapping boxes are told, where the model leaves the choice."""
    is_forced: bool = False

    def __post_init__(self) -> None:
        """Reject what contradicts itself."""
        if self.nms != Nms.CORRECTED and self.nms not in self.variant.nms_choices:
            raise ConfigError(f"--nms {self.nms} is not for {self.spec.name} on {self.platform}")
        if self.nms != Nms.CORRECTED and self.is_own_file and ending_of(Path(self.weights)) != ".onnx":
            raise ConfigError(f"--nms {self.nms}: {self.weights} has its own NMS, which is served as it is")
        if self.said != NOTHING_SAID and not self.is_own_file:
            raise ConfigError(
                "--preprocess, --label-offset, --classes, --boxes and --outputs are for your own files: "
                "named models have theirs"
            )
        recipe = self.said.preprocess
        if recipe and not is_for(self.spec.task, own_recipes.parse(recipe, self.spec.task)):
            raise ConfigError(f"--preprocess {recipe} is not for a model of {self.spec.task}")
        if self.said.label_offset is not None and self.spec.task != Task.CLASSIFICATION:
            raise ConfigError(f"--label-offset is not for a model of {self.spec.task}")
        if (self.said.numbering or self.said.box_form) and self.spec.task != Task.DETECTION:
            raise ConfigError(f"--classes and --boxes are not for a model of {self.spec.task}")
        if self.entry and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.entry):
            raise ConfigError(
                f"--name {self.entry!r} cannot be an entry's name: letters, digits, '_', '.' and '-' can"
            )
        if self.entry != self.default_entry and own_files.is_reserved(self.entry):
            raise ConfigError(f"--name {self.entry} is the entry of a named model; choose another")

    @property
    def is_own_file(self) -> bool:
        """Whether the weights are a user's file."""
        return is_user_file(self.weights)

    @property
    def default_entry(self) -> str:
        """The entry's name where none was given."""
        if self.is_own_file:
            return own_files.entry_name(Path(self.weights), self.platform)
        return self.spec.entry_name(self.platform)

    @property
    def entry_dir(self) -> Path:
        """Where the entry is, or will be."""
        return self.repository / (self.entry or self.default_entry)

    @property
    def filename(self) -> str:
        """Of the file to be served: a user's own may keep its kind."""
        facts = self.platform.facts
        kept = (name for name in facts.other_filenames if Path(name).suffix == ending_of(Path(self.weights)))
        return next(kept, facts.model_filename)

    @property
    def variant(self) -> Variant:
        """The model's own declaration for the platform, with the NMS that was chosen."""
        declared = get_variant(self.spec, self.platform)
        if declared.detection is None:
            return declared
        return replace(declared, detection=replace(declared.detection, nms=self.nms))


def convert(request: Request) -> Manifest:
    """Make an entry, unless it is there and made from the same weights by the same tools.

    Returns:
        What is in the entry now.

    Raises:
        ConfigError: the request contradicts the model.
        ConversionError: weights that cannot be had, or an export that does not equal its source.
    """
    names = _names(request)
    for name, following in itertools.pairwise(names):
        named = replace(request, entry=name)
        with publish.claim(request.repository, name):
            if not (taken := _taken(named)):
                return _told(request, _made(named, name))
        logger.info("%s is %s: that of %s is %s", name, taken, request.weights, following)
    with publish.claim(request.repository, names[-1]):
        return _told(request, _made(replace(request, entry=names[-1]), names[-1]))


def _told(request: Request, made: Manifest) -> Manifest:
    """What was made, after a word where its input cannot hold all that its recipe makes."""
    # Only what the user has said is taken so.
    if doubt := own_inputs.clipping(made.variant.preprocess):
        logger.warning("warning: %s: %s", request.weights, doubt)
    return made


def _names(request: Request) -> tuple[str, ...]:
    """What the entry may be called: the plain name, or the next where the one before is taken."""
    if request.entry or not request.is_own_file:
        return (request.entry_dir.name,)
    path, options = Path(request.weights), repr((request.spec.name, request.nms, request.said))
    apart = (own_files.entry_name_apart(path, request.platform, each) for each in ("", options))
    return (request.default_entry, *apart)


def _taken(request: Request) -> str:
    """What the entry is, that must not become one of this user's file; empty where it may."""
    try:
        existing = manifest.load(request.entry_dir)
    except ConversionError:
        return ""
    other, path = Path(existing.weights_file), absolute(Path(request.weights))
    if not other.exists() or not path.exists():
        return ""
    if not other.samefile(path):
        return "another file's entry"
    is_used = in_use.is_used_by_another(request.repository, path)
    return "used by another run with other options" if is_used and existing.tools != _tools(request) else ""


def _made(request: Request, entry: str) -> Manifest:
    """What is in a claimed entry, once it was made if need be."""
    variant = request.variant
    existing = None if request.is_forced else _intact(request, variant)
    source = _source(request, variant, existing)
    if existing and _is_made_from(existing, source, request):
        logger.info("%s is up to date (%s weights)", entry, existing.weights)
        return existing
    with publish.staged(request.repository, entry) as staging, _in_the_users_words(request, source, staging):
        return _copy_of_twin(request, source, staging) or _build(request, source, staging)


@contextmanager
def _in_the_users_words(request: Request, source: SourceFile, staging: Path) -> Iterator[None]:
    """Say of a user's file what is said of the one that is made of it, and soon is gone."""
    try:
        yield
    except ConversionError as error:
        made, folder = str(staging / "1" / request.filename), str(staging / "1")
        of_model = str(error).replace(made, f"{source.path} as {request.platform}'s {request.filename}")
        # Files beside the model, e.g. those of its weights, are the user's too.
        raise ConversionError(of_model.replace(folder, str(source.path.parent))) from error


def _intact(request: Request, variant: Variant) -> Manifest | None:
    """The entry's manifest, if all that it vouches for is still there and still declared so."""
    entry_dir = request.entry_dir
    try:
        found = manifest.load(entry_dir)
    except ConversionError:
        return None
    graph = entry_dir / "1" / request.filename
    config = entry_dir / publish.CONFIG_NAME
    is_intact = (
        (request.is_own_file or found.variant == variant)
        and found.entry == entry_dir.name
        and graph.exists()
        and manifest.digest(graph) == found.graph_sha256
        and (entry_dir / GOLDEN_NAME).exists()
        and config.exists()
        and config.read_text(encoding="utf-8") == to_text(model_config(found.entry, found.variant))
    )
    return found if is_intact else None


def _source(request: Request, variant: Variant, existing: Manifest | None) -> SourceFile:
    """Choose and get the weights."""
    if request.is_own_file:
        return weights.own_file(Path(request.weights), request.spec, request.platform)
    published = request.spec.sources[variant.source]
    if request.weights == OFFICIAL or (request.weights == AUTO and manifest.is_fetched(published)):
        return weights.official(request.spec, variant)
    if request.weights == AUTO and existing and existing.weights == OFFICIAL:
        # Fetched into another folder, at the time.
        path = Path(existing.weights_file)
        if path.exists() and manifest.digest(path) == existing.weights_sha256:
            return SourceFile(OFFICIAL, path, existing.weights_sha256)
    if request.weights == AUTO:
        logger.warning(
            "warning: no published weights for %s here: using seeded ones, whose accuracy means agreement "
            "with the source framework only; to get the published ones: ./run.sh fetch %s",
            request.spec.name,
            request.spec.name,
        )
        if loose := weights.loose_member(published):
            logger.warning(
                "warning: %s cannot be verified without %s, so it is not used; to use it as it is: "
                "--weights %s",
                loose,
                published.filename,
                loose,
            )
    return weights.seeded(request.spec, variant)


def _is_made_from(existing: Manifest, source: SourceFile, request: Request) -> bool:
    made_from = (existing.weights, existing.weights_file, existing.weights_sha256)
    return made_from == (source.kind, str(source.path), source.sha256) and existing.tools == _tools(request)


def _copy_of_twin(request: Request, source: SourceFile, staging: Path) -> Manifest | None:
    """Take the file of the platform that serves the same one, where that is there already, and verified."""
    if request.is_forced or request.platform.facts.twin is None:
        return None
    twin = replace(request, platform=request.platform.facts.twin, entry="")
    verified = _intact(twin, twin.variant)
    if verified is None or not _is_made_from(verified, source, twin):
        return None
    target = staging / "1" / request.filename
    made = replace(
        verified,
        entry=request.entry_dir.name,
        variant=replace(verified.variant, platform=request.platform),
        tools=_tools(request),
    )
    with publish.writing(request.repository):
        shutil.copyfile(twin.entry_dir / "1" / twin.filename, target)
        shutil.copyfile(twin.entry_dir / GOLDEN_NAME, staging / GOLDEN_NAME)
        _describe(made, staging)
    # Another process may have replaced it meanwhile.
    if manifest.digest(target) != made.graph_sha256 or _intact(twin, twin.variant) != verified:
        return None
    logger.info("%s: the file of %s, which equals its source", made.entry, verified.entry)
    return made


def _describe(made: Manifest, staging: Path) -> None:
    text = to_text(model_config(made.entry, made.variant))
    (staging / publish.CONFIG_NAME).write_text(text, encoding="utf-8")
    manifest.save(made, staging)


def _build(request: Request, source: SourceFile, staging: Path) -> Manifest:
    name, target = request.entry_dir.name, staging / "1" / request.filename
    _export(request, source, target)
    with (
        progress.waiting(f"{name}: comparing with its source"),
        candidate.opened(request.spec, request.variant, request.said, source, target) as found,
    ):
        comparison = found.compare()
    _report(request, comparison)
    made = Manifest(
        entry=name,
        model=request.spec.name,
        weights=source.kind,
        weights_file=str(source.path),
        weights_sha256=source.sha256,
        variant=found.variant,
        parity=comparison.parity,
        graph_sha256=manifest.digest(target),
        tools=_tools(request),
    )
    with publish.writing(request.repository):
        kept = found.inputs[list(comparison.kept)]
        np.savez(staging / GOLDEN_NAME, input=kept, **comparison.golden)
        _describe(made, staging)
    return made


def _export(request: Request, source: SourceFile, target: Path) -> None:
    if source.kind == USER_FILE:
        # Before it is exported, so that what is wrong is said of the user's file and not of ours.
        task, said = request.spec.task, request.said
        with model_files.open_file(source.path, request.spec, said.size_px(task), said.layout(task)) as graph:
            own_files.check_task(graph, request.variant, said)
    logger.info("%s: exporting %s", request.entry_dir.name, source.path)
    with progress.waiting(f"{request.entry_dir.name}: exporting"):
        model_files.export(request.platform, source.path, target, request.spec, request.nms)


def _report(request: Request, comparison: Comparison) -> None:
    found = comparison.parity
    if comparison.found_nothing:
        logger.warning(
            "warning: %s: finds nothing in any of %d test images; as the file is served as it is, its "
            "answers are not compared further",
            request.entry_dir.name,
            found.samples,
        )
        return
    what = f"{found.agreement:.2%} of the boxes" if request.variant.detection else "every class"
    logger.info(
        "%s: equals its source on %d inputs: largest difference %.2g (allowed %.2g), %s the same",
        request.entry_dir.name,
        found.samples,
        found.max_abs_diff,
        found.tolerance,
        what,
    )


def _tools(request: Request) -> dict[str, str]:
    """Versions of all that has a say in the entry."""
    declaration = repr((request.spec.name, request.variant, request.said))
    ours = hashlib.sha256(declaration.encode()).hexdigest()[:12]
    versions = {name: _version(name) for name in ("numpy", *request.platform.facts.tools)}
    return {"converters": f"{CODE_VERSION}.{synthetic.VERSION} {ours}", **versions}


def _version(name: str) -> str:
    for distribution in _DISTRIBUTIONS.get(name, (name,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    raise ConversionError(how_to_install(name))

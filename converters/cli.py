"""The command line of `python -m converters`: weights to entries of the model repository."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converters import command
from converters.conversion.convert import Request, convert
from converters.conversion.own_files import Said
from converters.conversion.weights import accepts
from harness.errors import ConfigError
from harness.machine.command import OneLineParser
from harness.machine.paths import MODEL_REPOSITORY, absolute, make_home
from harness.models import MODELS, get_model, get_platform, get_variant, own_recipes
from harness.models.manifest import AUTO, Manifest, WeightsWord, is_user_file
from harness.models.platforms import Platform
from harness.models.recipes import RECIPES
from harness.models.spec import BOX_FORMS, ModelSpec, Nms, Numbering


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert what the command line asks for; return the exit code."""

    def body() -> None:
        options = _parser().parse_args(arguments)
        command.log_all(is_debug=options.debug)
        make_home()
        for request in _requests(options):
            made = convert(request)
            line = request.repository / made.entry if options.print_entry else _summary(made)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    return command.run(body)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="./run.sh convert",
        description="Export a model for Triton, compare the export with its source, publish it.",
    )
    parser.add_argument("--model", required=True, help=", ".join(MODELS))
    parser.add_argument("--platform", help=f"{', '.join(Platform)} (default: every one that the model has)")
    parser.add_argument(
        "--weights",
        default=AUTO,
        metavar="|".join((*WeightsWord, "FILE")),
        help="auto: published weights if they were fetched, else what is there, else seeded; "
        "FILE: your own model of the same task (.pb, SavedModel folder, .onnx, .pt, .pth, .tflite, .xml)",
    )
    _add_said(parser)
    parser.add_argument(
        "--nms",
        default=Nms.CORRECTED,
        type=Nms,
        choices=list(Nms),
        help="ssd-resnet34 on pytorch: corrected, or the MLPerf reference's, bug for bug",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=MODEL_REPOSITORY,
        metavar="DIR",
        help="where the entry goes (default: model_repository/)",
    )
    parser.add_argument(
        "--name",
        default="",
        metavar="ENTRY",
        help="name of the entry (default: that of the model, or of your FILE, and the platform)",
    )
    parser.add_argument("--force", action="store_true", help="convert again even if nothing changed")
    parser.add_argument(
        "--print-entry", action="store_true", help="print the entry's folder and nothing else"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    return parser


def _add_said(parser: argparse.ArgumentParser) -> None:
    """Add what only a user can say of a file of their own."""
    parser.add_argument(
        *("--preprocess", "--recipe"),
        default="",
        metavar="NAME|KEY=VALUE,...",
        help=f"preprocessing of your FILE (default: the model's): {own_recipes.GRAMMAR}; "
        f"NAME: {', '.join(RECIPES)}",
    )
    parser.add_argument(
        "--label-offset",
        type=int,
        metavar="N",
        help="what to add to your FILE's class to get its label: 0, or -1 where class 0 is a background "
        "(default: -1 if it has 1001 classes, else 0)",
    )
    parser.add_argument(
        "--classes",
        type=Numbering,
        choices=list(Numbering),
        help="what your detector's class k means: "
        + "; ".join(f"{each}: {each.meaning.removeprefix('k is ')}" for each in Numbering)
        + " (default: the model's)",
    )
    parser.add_argument(
        "--boxes",
        default="",
        choices=BOX_FORMS,
        help="what your detector's boxes are: corners, or centre or left and top with width and height; in "
        "pixels of its input, or else shares of the image's sides (default: by its names and answers)",
    )
    parser.add_argument(
        "--outputs",
        default="",
        metavar="NAME",
        help="which output of your FILE to score, where it has several; a detector's with commas between",
    )


def _said(options: argparse.Namespace) -> Said:
    return Said(
        preprocess=options.preprocess,
        label_offset=options.label_offset,
        outputs=tuple(filter(None, options.outputs.split(","))),
        numbering=options.classes,
        box_form=options.boxes,
    )


def _requests(options: argparse.Namespace) -> list[Request]:
    """One for each platform; all are checked before the first is converted."""
    spec = get_model(options.model)
    if options.platform is not None:
        platforms = [get_platform(options.platform)]
        get_variant(spec, platforms[0])
    else:
        platforms = _platforms_for(spec, options.weights)
    if options.name and len(platforms) > 1:
        raise ConfigError("--name is for one entry: give a --platform too")
    request = Request(
        spec=spec,
        platform=platforms[0],
        weights=options.weights,
        repository=options.repository.absolute(),
        said=_said(options),
        entry=options.name,
        nms=options.nms,
        is_forced=options.force,
    )
    return [replace(request, platform=platform) for platform in platforms]


def _platforms_for(spec: ModelSpec, weights: str) -> list[Platform]:
    """Every platform of the model, or those that a user's file is of use to."""
    if not is_user_file(weights):
        return list(spec.variants)
    path = absolute(weights)
    platforms = [platform for platform in spec.variants if accepts(spec, platform, path)]
    if not platforms:
        raise ConfigError(
            f"{weights} is no model file that {spec.name} can be served from, or does not exist"
        )
    return platforms


def _summary(made: Manifest) -> str:
    return (
        f"{made.entry}: {made.weights} weights, largest difference to the source "
        f"{made.parity.max_abs_diff:.2g} on {made.parity.samples} inputs"
    )

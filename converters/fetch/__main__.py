"""The command that fetches published weights and data sets: download, resume, verify, unpack.

A file that is there and verified is used without touching the network.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from converters.fetch import coco
from converters.fetch.imagenet import WHERE_IMAGES_ARE, fetch_imagenet_labels
from converters.fetch.published import fetch_weights
from harness.errors import ConfigError, ConversionError, nearest
from harness.machine import command, paths
from harness.machine.command import OneLineParser
from harness.models import MODELS, get_model

IMAGENET, COCO = "imagenet", "coco2017"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m converters.fetch`; return the exit code."""
    parser = OneLineParser(
        prog="./run.sh fetch",
        description="Download a model's published weights, ImageNet's list of labels, or COCO's validation "
        "images and annotations of 2017 (1 GB), and verify them.",
    )
    parser.add_argument("what", help=f"{', '.join(MODELS)}, {IMAGENET} or {COCO}")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder (default: $MODEL_DIR or $DATA_DIR, else .state/)"
    )

    def body() -> None:
        options = parser.parse_args(arguments)
        sys.stdout.write(_fetch_by_name(options.what, options.to))

    kept = "interrupted; what was downloaded is kept, and the next fetch goes on from there"
    return command.run(body, interrupted=kept)


def _fetch_by_name(name: str, folder: Path | None) -> str:
    """Fetch all that belongs to a model or a data set; return what to print."""
    if name in (IMAGENET, COCO):
        folder = _made(folder or paths.data_dir() or paths.STATE_DIR / "data" / name)
        if name == COCO:
            return coco.fetch(folder)
        where = WHERE_IMAGES_ARE.format(folder=folder)
        try:
            return f"{fetch_imagenet_labels(folder)}\n{where}"
        except ConversionError:
            # Without a network, too, it can be brought there by hand.
            sys.stdout.write(where)
            raise
    try:
        sources = get_model(name).sources.values()
    except ConfigError as error:
        known = (*MODELS, IMAGENET, COCO)
        raise ConfigError(
            f"nothing to fetch is called {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        ) from error
    folder = _made(folder or paths.weights_dir())
    return "".join(f"{fetch_weights(weights, folder)}\n" for weights in sources)


def _made(folder: Path) -> Path:
    """An absolute path, whose place there is if it is one of ours."""
    if folder.is_relative_to(paths.STATE_DIR):
        paths.make_home()
    return folder.absolute()


if __name__ == "__main__":
    sys.exit(main())

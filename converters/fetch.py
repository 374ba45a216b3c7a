"""The command that fetches published weights and data sets: download, resume, verify, unpack.

A file that is there and verified is used without touching the network.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from converters import download, fetch_coco
from converters.published import errors_about, fetch_file, fetch_member
from harness.data.imagenet import LIST_NAME
from harness.errors import EXIT_INTERRUPTED, EXIT_VALID, ConfigError, ConversionError, HarnessError, nearest
from harness.machine import paths
from harness.machine.command import CommandParser
from harness.models import MODELS, get_model
from harness.models.spec import Weights

IMAGENET, COCO = "imagenet", "coco2017"
# mlcommons/mlperf-automations, get-dataset-imagenet-aux: the mirror's archive is packed differently.
_IMAGENET_LABELS = (
    Weights(
        filename="caffe_ilsvrc12.tar.gz",
        urls=("http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz",),
        checksum="md5:f963098ea0e785a968ca1eb634003a90",
        member="val.txt",
    ),
    Weights(
        filename="caffe_ilsvrc12.tar.gz",
        urls=("https://armi.in/files/caffe_ilsvrc12.tar.gz",),
        checksum="md5:ee346d67141e476df9c1a3f813552503",
        member="val.txt",
    ),
)
_IMAGENET_IMAGES = """\
The 50,000 images cannot be fetched for you: register at https://image-net.org/download-images, get
ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622) and unpack it into {folder}
"""


def fetch_weights(weights: Weights, folder: Path) -> Path:
    """Get a published file, or the member of a published archive, into `folder`.

    A damaged file is reported and fetched again; an interrupted download goes on where it stopped.

    Returns:
        Path of the verified file; for an archive, of its unpacked member.

    Raises:
        ConversionError: no source has it, its checksum differs, or the folder cannot be written.
    """
    if not weights.member:
        with errors_about(folder / weights.filename):
            return fetch_file(weights, folder)
    return fetch_member(weights, folder, PurePosixPath(weights.member).name)


def fetch_imagenet_labels(folder: Path) -> Path:
    """Get the list of ImageNet's validation images and labels as `folder`/val_map.txt.

    Raises:
        ConversionError: no source has it, or another list is there already.
    """
    present = [
        source for source in _IMAGENET_LABELS if download.matches(folder / source.filename, source.checksum)
    ]
    problems = []
    for source in present or _IMAGENET_LABELS:
        try:
            return fetch_member(source, folder, LIST_NAME)
        except ConversionError as error:
            problems.append(str(error))
    raise ConversionError("; ".join(dict.fromkeys(problems)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m converters.fetch`; return the exit code."""
    parser = CommandParser(
        prog="./run.sh fetch",
        description="Download a model's published weights, ImageNet's list of labels, or COCO's validation "
        "images and annotations of 2017 (1 GB), and verify them.",
    )
    parser.add_argument("what", help=f"{', '.join(MODELS)}, {IMAGENET} or {COCO}")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder (default: $MODEL_DIR or $DATA_DIR, else .state/)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.stdout.write(_fetch_by_name(options.what, options.to))
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was downloaded is kept, and the next fetch goes on from there\n")
        return EXIT_INTERRUPTED
    return EXIT_VALID


def _fetch_by_name(name: str, folder: Path | None) -> str:
    """Fetch all that belongs to a model or a data set; return what to print."""
    if name in (IMAGENET, COCO):
        folder = (folder or paths.data_dir() or paths.STATE_DIR / "data" / name).absolute()
        if name == COCO:
            return fetch_coco.fetch(folder)
        return f"{fetch_imagenet_labels(folder)}\n" + _IMAGENET_IMAGES.format(folder=folder)
    try:
        sources = get_model(name).sources.values()
    except ConfigError as error:
        known = (*MODELS, IMAGENET, COCO)
        raise ConfigError(
            f"nothing to fetch is called {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        ) from error
    folder = (folder or paths.weights_dir()).absolute()
    return "".join(f"{fetch_weights(weights, folder)}\n" for weights in sources)


if __name__ == "__main__":
    sys.exit(main())

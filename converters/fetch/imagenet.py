"""ImageNet's list of labels, and where its images are to be had."""

from pathlib import Path

from converters.fetch import download
from converters.fetch.published import fetch_member
from harness.data.imagenet import LIST_NAME
from harness.errors import ConversionError
from harness.models.spec import Weights

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
WHERE_IMAGES_ARE = """\
The 50,000 images cannot be fetched for you: register at https://image-net.org/download-images, get
ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622) and unpack it into {folder}
Their labels belong beside them, into val_map.txt: a line `ILSVRC2012_val_00000001.JPEG 65` for each image.
"""


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
    *others, last = dict.fromkeys(problems)
    # Of archives of one name, which is told once.
    remedy = download.by_hand(folder / source.filename)
    raise ConversionError("; ".join([*(other.removesuffix(remedy) for other in others), last]))

"""What `harness.data.preprocess` takes of OpenCV, by its names, for a client without it: 137 MB less.

Of bytes every pixel is that of OpenCV 4.11 on x86-64 (modules/imgproc/src/resize.cpp): the same steps, in the
same order, in integers or float32. A picture of float32 it leaves to another library, whose rounding nobody
can repeat here: detectors, whose images are stretched so, need OpenCV.
"""

import io
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, features

from harness.errors import ConfigError
from harness.machine.extras import how_to_install

INTER_LINEAR, INTER_AREA, IMREAD_COLOR, COLOR_BGR2RGB = 1, 3, 1, 4
__version__ = "by numpy 1"
"""Goes up whenever a pixel changes: preprocessed samples of another version are made anew."""

_COEFFICIENT_BITS = 11
_LEAST_SHARE = 1e-3
"""Of a pixel at the rim of an area; less is left out."""

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class error(Exception):
    """What cannot be carried out."""

    @property
    def err(self) -> str:
        """The reason."""
        return str(self)


def getBuildInformation() -> str:
    """Which JPEG library decodes."""
    return f"JPEG: libjpeg-turbo {features.version_feature('libjpeg_turbo') or 'unknown'} of Pillow"


def cvtColor(_image: Any, _code: int) -> Any:
    """The first step of what only OpenCV can do."""
    raise ConfigError(f"images for this model are stretched by OpenCV: {how_to_install('cv2')}")


def imdecode(content: U8, _flags: int) -> U8 | None:
    """(h, w, 3) BGR, turned as its EXIF data says; None where it is no image.

    Raises:
        error: it is of a kind that the two libraries may see differently.
    """
    try:
        image = Image.open(io.BytesIO(content.tobytes()))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if image.mode not in ("RGB", "L"):
        raise error(f"an image of Pillow's mode {image.mode} is OpenCV's to decode: {how_to_install('cv2')}")
    return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[..., ::-1])


def resize(image: U8, size: tuple[int, int], interpolation: int) -> U8:
    """Another size, (width, height), of a picture of bytes.

    Raises:
        error: it would have no pixels.
    """
    width, height = size
    if width < 1 or height < 1:
        raise error("no pixel would be left")
    if (height, width) == image.shape[:2]:
        return image.copy()
    scales = (1.0 / (height / image.shape[0]), 1.0 / (width / image.shape[1]))
    wholes = (round(scales[0]), round(scales[1]))
    is_whole = max(abs(scales[0] - wholes[0]), abs(scales[1] - wholes[1])) < sys.float_info.epsilon
    is_area = interpolation == INTER_AREA or (is_whole and wholes == (2, 2))
    if not is_area or min(scales) < 1:
        return _linear(image, (height, width), scales, is_area=is_area)
    return _means(image, wholes) if is_whole else _areas(image, (height, width), scales)


def _means(image: U8, wholes: tuple[int, int]) -> U8:
    """Each pixel the mean of a block of whole pixels."""
    (rows, columns), (height, width, channels) = wholes, image.shape
    blocks = image.reshape(height // rows, rows, width // columns, columns, channels)
    sums = blocks.sum(axis=(1, 3), dtype=np.int32)
    if wholes == (2, 2):
        return np.asarray((sums + 2) >> 2, np.uint8)
    return _bytes(sums.astype(np.float32) * np.float32(1 / np.float32(rows * columns)))


def _areas(image: U8, shape: tuple[int, int], scales: tuple[float, float]) -> U8:
    """Each pixel the mean of the area that it covers: along rows, then down the columns."""
    (rows, row_shares), (columns, column_shares) = (
        _covered(old, new, scale) for old, new, scale in zip(image.shape[:2], shape, scales, strict=True)
    )
    across = np.zeros((image.shape[0], shape[1], image.shape[2]), np.float32)
    for index, share in zip(columns, column_shares, strict=True):
        across += image[:, index] * share[:, None]
    result = np.zeros((*shape, image.shape[2]), np.float32)
    for index, share in zip(rows, row_shares, strict=True):
        result += across[index] * share[:, None, None]
    return _bytes(result)


def _covered(old: int, new: int, scale: float) -> tuple[Indices, F32]:
    """Which pixels each new one covers, and with which share: both (most that one covers, new).

    Those that cover fewer have shares of 0 at the end, which change no sum.
    """
    table: list[list[tuple[int, float]]] = []
    for place in range(new):
        start = place * scale
        end = start + scale
        width = min(scale, old - start)
        last = min(int(np.floor(end)), old - 1)
        first = min(int(np.ceil(start)), last)
        cells = [(first - 1, (first - start) / width)] if first - start > _LEAST_SHARE else []
        cells += [(cell, 1.0 / width) for cell in range(first, last)]
        if end - last > _LEAST_SHARE:
            cells.append((last, min(end - last, 1.0, width) / width))
        table.append(cells)
    most = max(map(len, table))
    padded = np.array([cells + [(0, 0.0)] * (most - len(cells)) for cells in table])
    return padded[..., 0].T.astype(np.intp), padded[..., 1].T.astype(np.float32)


def _linear(image: U8, shape: tuple[int, int], scales: tuple[float, float], *, is_area: bool) -> U8:
    """Between the two nearest pixels of each direction, in fixed-point numbers."""
    rows, row_shares = _neighbours(image.shape[0], shape[0], scales[0], is_area=is_area)
    columns, column_shares = _neighbours(image.shape[1], shape[1], scales[1], is_area=is_area)
    # Beyond the rim there is one pixel only, which has all of the share.
    column_shares[:, columns[0] == columns[1]] = ((1 << _COEFFICIENT_BITS,), (0,))
    wide = image.astype(np.int32)
    across = sum(wide[:, index] * share[:, None] for index, share in zip(columns, column_shares, strict=True))
    # Down the columns it is sixteen bits times sixteen, of which the upper half is kept.
    parts = (
        (across[index] >> 4) * share[:, None, None] >> 16
        for index, share in zip(rows, row_shares, strict=True)
    )
    return np.asarray(((sum(parts) + 2) >> 2).clip(0, 255), np.uint8)


def _neighbours(old: int, new: int, scale: float, *, is_area: bool) -> tuple[Indices, npt.NDArray[np.int32]]:
    """The two pixels that each new one lies between, and their shares in 2048ths: both (2, new)."""
    places = np.arange(new)
    if is_area:
        left = np.floor(places * scale)
        offsets = np.asarray((places + 1) - (left + 1) * (new / old), np.float32)
        offsets = np.where(offsets <= 0, np.float32(0), offsets - np.floor(offsets))
    else:
        centres = np.asarray((places + 0.5) * scale - 0.5, np.float32)
        left = np.floor(centres)
        offsets = centres - left
    first = left.astype(np.intp)
    shares = np.stack([np.float32(1) - offsets, offsets]) * np.float32(1 << _COEFFICIENT_BITS)
    return np.stack([first, first + 1]).clip(0, old - 1), np.rint(shares).astype(np.int32)


def _bytes(values: F32) -> U8:
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)

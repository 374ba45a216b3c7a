"""Image file to model input, by the MLPerf reference's arithmetic, bit for bit.

Reference: mlcommons/inference, vision/classification_and_detection/python/dataset.py. What depends on order,
rounding or the decoder is kept as it is there; what commutes exactly is done where it is cheapest: colours
are swapped after the crop (each resize of bytes works on every channel by itself).
"""

import io
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from harness.errors import DatasetError
from harness.models.spec import ChannelOrder, DType, Layout, Preprocess, Quantization, Resize

try:
    import cv2
except ModuleNotFoundError:
    from harness.data import numpy_cv as cv2  # type: ignore[no-redef]

U8Image = npt.NDArray[np.uint8]
"""(height, width, 3)"""

_ResizeAndCrop = Callable[[U8Image, tuple[int, int], float], npt.NDArray[Any]]
"""(image, (height, width), share that the crop keeps) -> what is left, as BGR"""

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "divide": np.divide,
    "subtract": np.subtract,
    "multiply": np.multiply,
}
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_JPEG_2000_STARTS = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
UNMARKED_STARTS = (b"BM", b"RIFF", b"P5", b"P6", *_JPEG_2000_STARTS, *_TIFF_STARTS)
"""Of BMP, WebP, PGM, PPM, JPEG 2000 and TIFF, whose end no marker shows for sure."""
_FILLER_BYTES = 64
"""More than what a decoder buffers of a scan's bits; as data, they would be pixels."""
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


def load(path: Path, recipe: Preprocess, annotated_px: tuple[int, int] | None = None) -> npt.NDArray[Any]:
    """Decode and preprocess one file; see `apply` for the result.

    Args:
        path: the file.
        recipe: how.
        annotated_px: (height, width) that annotations give for the image, if any: true boxes are in pixels.

    Raises:
        DatasetError: the file cannot be used, or is not of the annotated size; names it.
    """
    image = decode(path)
    if annotated_px and image.shape[:2] != annotated_px:
        (height, width), (annotated_height, annotated_width) = image.shape[:2], annotated_px
        raise DatasetError(
            f"{path}: the image has {width}x{height} pixels (width x height, turned as its EXIF data says), "
            f"its annotations are of one of {annotated_width}x{annotated_height}: use the images that were "
            "annotated"
        )
    try:
        return apply(image, recipe)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def decode(path: Path) -> U8Image:
    """Read an image as OpenCV's `imread` does: 3 channels **BGR**, rotated as its EXIF data says.

    A file that lacks pixels is refused, although OpenCV would fill the rest with grey.

    Raises:
        DatasetError: missing, not an image, or cut off.
    """
    try:
        content = _without_half_marker(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    if _is_cut_off(content):
        raise DatasetError(f"{path}: the file is cut off ({len(content)} bytes); fetch it again")
    try:
        is_jpeg = content.startswith(_JPEG_START)
        # OpenCV reads a file without the marker, but not the same bytes from memory.
        ending = _JPEG_END if is_jpeg and not _has_end(content) else b""
        image = _decoded(content + ending) if content else None
    except cv2.error as error:
        raise DatasetError(f"{path}: OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise DatasetError(f"{path}: not an image that OpenCV can decode ({len(content)} bytes)")
    return image.astype(np.uint8, copy=False)


def apply(image_bgr: U8Image, recipe: Preprocess) -> npt.NDArray[Any]:
    """Resize, crop, order the channels, normalise, and quantise where the input is.

    Args:
        image_bgr: (h, w, 3) uint8 from `decode`.
        recipe: what to do; its steps are carried out one by one in float32.

    Returns:
        C-contiguous array of `recipe.shape` and `recipe.dtype`.

    Raises:
        DatasetError: the image is too extreme to be resized.
    """
    if image_bgr.dtype != np.uint8 or image_bgr.ndim != 3 or image_bgr.shape[2] != 3:
        raise ValueError(f"(h, w, 3) uint8 wanted, not {image_bgr.shape} {image_bgr.dtype}")
    pixels = _RESIZE[recipe.resize](image_bgr, recipe.size_px, recipe.crop)
    ordered = pixels[..., ::-1] if recipe.order == ChannelOrder.RGB else pixels
    values = ordered if recipe.layout == Layout.NHWC else ordered.transpose(2, 0, 1)
    if recipe.dtype == DType.UINT8 and recipe.quantization is None:
        # From float32 to uint8 this cuts the fraction off, as the reference does for coco-300.
        return np.ascontiguousarray(values, dtype=np.uint8)
    result = np.ascontiguousarray(values, dtype=np.float32)
    per_channel = (3,) if recipe.layout == Layout.NHWC else (3, 1, 1)
    for step in recipe.steps:
        operand = np.broadcast_to(np.array(step.values, np.float32), 3).reshape(per_channel)
        _OPERATIONS[step.op](result, operand, out=result)
    if recipe.quantization is not None:
        return _quantized(result, recipe.quantization, recipe.dtype)
    return np.asarray(result, recipe.dtype.value)


def _quantized(values: npt.NDArray[np.float32], how: Quantization, dtype: DType) -> npt.NDArray[Any]:
    """What a quantised input stores for real numbers; those beyond its range become the nearest in it."""
    limits = np.iinfo(dtype.value)
    stored = np.rint(values / np.float32(how.scale)) + np.float32(how.zero_point)
    return np.asarray(stored.clip(limits.min, limits.max), dtype.value)


@cache
def decoder_version() -> str:
    """The libraries whose version can change a pixel, e.g. `opencv 4.11.0, libjpeg-turbo 3.0.3-70, …`."""
    jpeg = re.search(r"^\s*JPEG:\s*(.+?)\s*$", cv2.getBuildInformation(), re.MULTILINE)
    # A build that takes the system's library prints the path where it was compiled: not a version.
    library = re.sub(r"^\S*/|^build-", "", jpeg.group(1)) if jpeg else "unknown JPEG library"
    return f"opencv {cv2.__version__}, {library}, pillow {PIL.__version__}"


def _is_cut_off(content: bytes) -> bool:
    """Whether the end marker of a JPEG's last scan, or of a PNG, is missing and its pixels too.

    The marker of an embedded thumbnail comes before the scan. Pillow, which refuses what OpenCV fills with
    grey, has the last word of other kinds, so that odd bytes after a good image do no harm; but not of a TIFF
    whose kind of pixels it does not know.
    """
    if content.startswith(_JPEG_START):
        return (
            not _has_end(content) and not _has_every_pixel(content) and not _is_complete_for_pillow(content)
        )
    is_suspect = content.startswith(UNMARKED_STARTS)
    is_suspect |= content.startswith(_PNG_START) and _PNG_END not in content
    return is_suspect and not _is_complete_for_pillow(content)


def _without_half_marker(content: bytes) -> bytes:
    """A JPEG without the first byte of an end marker whose second one is missing; others as they are."""
    is_halved = content.startswith(_JPEG_START) and not _has_end(content)
    return content.removesuffix(_JPEG_END[:1]) if is_halved else content


def _has_end(jpeg: bytes) -> bool:
    return jpeg.rfind(_JPEG_END) >= jpeg.rfind(_JPEG_SCAN)


def _has_every_pixel(jpeg: bytes) -> bool:
    """Whether a JPEG lacks no more than its end marker: then what follows its scan changes no pixel."""
    endings = (_JPEG_END, b"\x55" * _FILLER_BYTES + _JPEG_END)
    one, other = (_decoded(jpeg + ending) for ending in endings)
    return one is not None and other is not None and np.array_equal(one, other)


def _decoded(content: bytes) -> npt.NDArray[Any] | None:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _is_complete_for_pillow(content: bytes) -> bool:
    """Whether Pillow reads every pixel, or cannot even open what is a TIFF: OpenCV knows more of those."""
    try:
        image = Image.open(io.BytesIO(content))
    except (OSError, SyntaxError, ValueError):
        return content.startswith(_TIFF_STARTS)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def _resized_px(height: int, width: int, size_px: tuple[int, int], crop: float) -> tuple[int, int]:
    """(height, width) after the aspect-keeping resize, which is just as large as what the crop is cut from.

    For square inputs, which are all that the reference has, its own arithmetic.
    """
    # In percent, as the reference calculates.
    least_height, least_width = (math.floor(100.0 * side / (100.0 * crop)) for side in size_px)
    if least_width * height > least_height * width:
        return int(least_width * height / width), least_width
    return least_height, int(least_height * width / height)


def _opencv(interpolation: int) -> _ResizeAndCrop:
    def resize_and_crop(image: U8Image, size_px: tuple[int, int], crop: float) -> U8Image:
        height, width = _resized_px(image.shape[0], image.shape[1], size_px, crop)
        try:
            resized = cv2.resize(image, (width, height), interpolation=interpolation)
        except cv2.error as error:
            raise DatasetError(f"cannot be resized to {width}x{height} pixels ({error.err})") from error
        top, left = int((height - size_px[0]) / 2), int((width - size_px[1]) / 2)
        return resized[top : top + size_px[0], left : left + size_px[1]].astype(np.uint8, copy=False)

    return resize_and_crop


def _pillow_bilinear(image: U8Image, size_px: tuple[int, int], crop: float) -> U8Image:
    """Torchvision's `resize` (anti-aliased, unlike OpenCV's) and `center_crop` (rounds half to even)."""
    height, width = _resized_px(image.shape[0], image.shape[1], size_px, crop)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size_px[0]) / 2), round((width - size_px[1]) / 2)
    return np.asarray(resized.crop((left, top, left + size_px[1], top + size_px[0])))


def _stretch(image: U8Image, size_px: tuple[int, int], _crop: float) -> npt.NDArray[np.float32]:
    """The whole image, in float32: rounding to whole numbers here would change a third of the values."""
    height, width = size_px
    # Red first already here, as in the reference: of float32, OpenCV rounds what its vector instructions
    # leave over otherwise, and which of a row's values those are depends on the channel's place.
    rgb = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2RGB)
    resized = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.float32, copy=False)[..., ::-1]


_RESIZE: dict[Resize, _ResizeAndCrop] = {
    Resize.ASPECT_AREA: _opencv(cv2.INTER_AREA),
    Resize.ASPECT_LINEAR: _opencv(cv2.INTER_LINEAR),
    Resize.ASPECT_PILLOW_BILINEAR: _pillow_bilinear,
    Resize.STRETCH_LINEAR: _stretch,
}

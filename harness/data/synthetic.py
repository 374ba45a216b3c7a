"""Photograph-like JPEGs that the tool draws itself, so that everything runs without a download.

Image i is the same whatever the count and the order of drawing. They have no ground truth: accuracy on them
means agreement with the source framework.
"""

import logging
import re
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from harness.errors import DatasetError
from harness.machine import file_lock
from harness.machine.files import whole
from harness.machine.threads import in_threads

logger = logging.getLogger(__name__)

VERSION = 1
"""Goes up whenever a pixel changes; images of another version are drawn anew."""

U8Image = npt.NDArray[np.uint8]
Palette = npt.NDArray[np.uint8]
"""(n, 3), BGR."""

# (height, width): the common shapes of ImageNet, odd and square ones, and some under 256 pixels.
_SIZES_PX = (
    (375, 500), (375, 500), (333, 500), (500, 375), (500, 333), (480, 640), (400, 400),
    (321, 481), (281, 300), (256, 256), (150, 200), (231, 175), (600, 800), (768, 512),
)  # fmt: skip
_GREYSCALE_SHARE = 0.05
_SINE = np.sin(np.linspace(0, 2 * np.pi, 1024, endpoint=False)).round(6)
_LAYER_COUNT = (2, 8)  # at least, and fewer than
_COMMENT = re.compile(rb"\xff\xd8\xff\xfe..synthetic v(\d+) image (\d+) crc32 ([0-9a-f]{8})", re.DOTALL)


def draw_set(
    root: Path, count: int, workers: int, progress: Callable[[int], object] = lambda _: None
) -> list[Path]:
    """Make sure that images 0 to `count` - 1 are in `root`; keeps those that are there and intact.

    Args:
        root: folder of the images; made if missing. Concurrent callers wait for each other.
        count: how many images.
        workers: threads that draw.
        progress: called with the number of images that were finished since the last call.

    Raises:
        DatasetError: the folder cannot be written.
    """
    paths = [root / f"synthetic_{index:08d}.jpg" for index in range(count)]
    wanted = [index for index, path in enumerate(paths) if not is_intact(path, index)]
    progress(count - len(wanted))
    if wanted:
        try:
            root.mkdir(parents=True, exist_ok=True)
            with file_lock.hold(root / ".lock"):
                _draw_all(root, wanted, [paths[index] for index in wanted], workers, progress)
        except OSError as error:
            raise DatasetError(
                f"cannot draw synthetic images in {root}: {error.strerror or error}"
            ) from error
    return paths


def draw(index: int) -> U8Image:
    """Image number `index`: (h, w, 3) uint8, or (h, w) where it is greyscale."""
    rng = np.random.default_rng((VERSION, index))
    height, width = _SIZES_PX[rng.integers(len(_SIZES_PX))]
    palette = _palette(rng)
    image = _background(rng, height, width, palette)
    for _ in range(rng.integers(*_LAYER_COUNT)):
        layer = _LAYERS[rng.integers(len(_LAYERS))]
        image = layer(rng, image, palette)
    image = _finish(rng, image)
    if rng.random() < _GREYSCALE_SHARE:
        return _u8(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    return image


def encode(index: int) -> bytes:
    """Image number `index` as a JPEG whose first comment tells version, index and checksum."""
    quality = 85 + index % 4 * 3
    is_done, jpeg = cv2.imencode(".jpg", draw(index), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert is_done
    start, rest = jpeg[:2].tobytes(), jpeg[2:].tobytes()
    text = f"synthetic v{VERSION} image {index} crc32 {zlib.crc32(rest):08x}".encode()
    return start + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + rest


def is_intact(path: Path, index: int) -> bool:
    """Whether `path` holds image number `index` of this version, byte for byte."""
    try:
        content = path.read_bytes()
    except OSError:  # missing, or in the way of the one that is drawn now
        return False
    comment = _COMMENT.match(content)
    return (
        comment is not None
        and (int(comment[1]), int(comment[2])) == (VERSION, index)
        and int(comment[3], 16) == zlib.crc32(content[comment.end() :])
    )


def _draw_all(
    root: Path, indices: list[int], paths: list[Path], workers: int, progress: Callable[[int], object]
) -> None:
    for left_behind in root.glob(".*.tmp"):  # by a process that was killed: we hold the lock
        left_behind.unlink()
    items = list(zip(indices, paths, strict=True))
    with closing(in_threads(lambda item: _ensure(*item), items, workers)) as drawn:
        for _ in drawn:
            progress(1)


def _ensure(index: int, path: Path) -> None:
    if not is_intact(path, index):
        with whole(path, is_locked=True) as partial:
            partial.write_bytes(encode(index))


def _u8(image: Any) -> U8Image:
    return np.asarray(image, np.uint8)


def _palette(rng: np.random.Generator) -> Palette:
    """A handful of colours that belong together: few hues, mostly pale or earthy, as in photographs."""
    count = rng.integers(3, 9)
    hue = rng.normal(rng.uniform(0, 180), rng.uniform(3, 50), count) % 180
    saturation = rng.uniform(0, 255 * rng.uniform(0.05, 1) ** 1.5, count)
    value = rng.uniform(rng.uniform(0, 120), 255, count)
    hsv = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)
    return _u8(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2BGR)[0])


def _colour(rng: np.random.Generator, palette: Palette) -> tuple[int, int, int]:
    """One of the palette, a little off."""
    near = rng.choice(palette) + rng.normal(0, 12, 3)
    blue, green, red = np.clip(near, 0, 255).astype(int).tolist()
    return blue, green, red


def _points(
    rng: np.random.Generator, image: U8Image, count: int, reach: float = 0.3
) -> npt.NDArray[np.int32]:
    """`count` (x, y) around a random centre, within about `reach` of the image's longer side."""
    height, width = image.shape[:2]
    centre = rng.random(2) * (width, height)
    return (centre + rng.normal(0, reach * max(height, width), (count, 2))).astype(np.int32)


def _background(rng: np.random.Generator, height: int, width: int, palette: Palette) -> U8Image:
    """Smoothly interpolated colours: a wall, or sky above ground."""
    rows, columns = rng.integers(2, 6, 2)
    if rng.random() < 0.4:
        columns = 1
    colours = rng.choice(palette, (rows, columns)).astype(np.uint8)
    return _u8(cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR))


def _ellipses(rng: np.random.Generator, image: U8Image, palette: Palette) -> U8Image:
    largest = rng.uniform(0.03, 0.4) * max(image.shape[:2])
    colour = _colour(rng, palette)
    for x, y in _points(rng, image, int(rng.integers(1, 15)), rng.uniform(0.05, 0.4)).tolist():
        axes = rng.uniform(0.2, 1, 2) * largest
        shape = ((x, y), (int(axes[0]) + 1, int(axes[1]) + 1), float(rng.uniform(0, 180)), 0, 360)
        thickness = -1 if rng.random() < 0.7 else int(rng.integers(1, 8))
        cv2.ellipse(image, *shape, colour, thickness, cv2.LINE_AA)
        if rng.random() < 0.5:
            colour = _colour(rng, palette)
    return image


def _polygons(rng: np.random.Generator, image: U8Image, palette: Palette) -> U8Image:
    for _ in range(rng.integers(1, 8)):
        corners = _points(rng, image, int(rng.integers(3, 8)), rng.uniform(0.03, 0.3))
        cv2.fillPoly(image, [cv2.convexHull(corners)], _colour(rng, palette), cv2.LINE_AA)
    return image


def _strokes(rng: np.random.Generator, image: U8Image, palette: Palette) -> U8Image:
    """Hair, grass, branches: many lines of similar colour and direction."""
    count, thickness = int(rng.integers(20, 150)), int(rng.integers(1, 5))
    starts = _points(rng, image, count, rng.uniform(0.1, 0.5))
    direction = rng.normal(0, rng.uniform(5, 80), 2)
    ends = starts + (direction + rng.normal(0, rng.uniform(1, 30), (count, 2))).astype(np.int32)
    shades = np.clip(_colour(rng, palette) + rng.normal(0, 30, (count, 3)), 0, 255)
    for start, end, shade in zip(starts.tolist(), ends.tolist(), shades.tolist(), strict=True):
        cv2.line(image, start, end, shade, thickness, cv2.LINE_AA)
    return image


def _waves(rng: np.random.Generator, image: U8Image, palette: Palette) -> U8Image:
    """Straight or bent ripples across a part of the image: fur, fabric, water."""
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    angle, steps = rng.uniform(0, np.pi), _SINE.size / rng.uniform(4, 80)
    # Whole numbers: sines of whole arrays end in other bits on other processors.
    along = ((x * np.cos(angle) + y * np.sin(angle)) * steps).astype(np.int32)
    across = ((y * np.cos(angle) - x * np.sin(angle)) * rng.uniform(3, 30)).astype(np.int32)
    bend = (_SINE * rng.uniform(0, _SINE.size / 3)).astype(np.int32)
    phase = (along + bend[across % _SINE.size]) % _SINE.size
    share = np.clip(_SINE * rng.uniform(0.5, 3) + 0.5, 0, 1)[:, None]
    shades = (1 - share) * _colour(rng, palette) + share * _colour(rng, palette)
    pattern = shades.astype(np.uint8)[phase]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [cv2.convexHull(_points(rng, image, 8))], (255,))
    return _u8(cv2.copyTo(pattern, mask, image))


def _grain(rng: np.random.Generator, image: U8Image, palette: Palette) -> U8Image:
    """The palette in small cells, mixed into the whole image: gravel, foliage, film grain."""
    height, width = image.shape[:2]
    size = rng.uniform(1, 30)
    cells = rng.choice(palette, (int(height / size) + 2, int(width / size) + 2)).astype(np.uint8)
    noise = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
    share = rng.uniform(0.03, 0.6)
    return _u8(cv2.addWeighted(image, 1 - share, noise, share, 0))


def _finish(rng: np.random.Generator, image: U8Image) -> U8Image:
    """A camera's contrast, brightness and, in one image of three, lack of focus."""
    image = _u8(cv2.convertScaleAbs(image, alpha=rng.uniform(0.6, 1.3), beta=rng.uniform(-30, 40)))
    if rng.random() < 1 / 3:
        image = _u8(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5)))
    return image


_LAYERS: tuple[Callable[[np.random.Generator, U8Image, Palette], U8Image], ...] = (
    _ellipses,
    _polygons,
    _strokes,
    _waves,
    _grain,
)

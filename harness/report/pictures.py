"""The pictures of a run, small enough to be part of a page."""

import base64
from dataclasses import dataclass
from pathlib import Path

_WIDTH_PX = 720
"""Of a picture with the truth beside it."""
_MOST_BYTES = 2_500_000
"""Of all pictures together: what one still sends by mail."""
_QUALITY = 82
PICTURES_NAME = "pictures"


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    name: str
    uri: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Pictures:
    """Those of a run."""

    shown: tuple[Picture, ...]
    total: int
    """With those that would make the page too large."""


def embedded(folder: Path) -> Pictures:
    """Scale the pictures of a results folder down to `data:` URIs; leaves out what cannot be read."""
    found: list[Picture] = []
    room = _MOST_BYTES
    # By sample index; what else somebody put there is none of the run's.
    files = [(file.name.partition("_")[0], file) for file in (folder / PICTURES_NAME).glob("*.jpg")]
    ordered = [
        file for _, file in sorted((int(number), file) for number, file in files if number.isdecimal())
    ]
    for file in ordered:
        picture = _scaled(file)
        if picture is None:
            continue
        room -= len(picture.uri)
        if room < 0:
            break
        found.append(picture)
    return Pictures(tuple(found), len(ordered))


def _scaled(file: Path) -> Picture | None:
    # A client that has no OpenCV has drawn nothing either.
    import cv2

    image = cv2.imread(str(file))
    if image is None:
        return None
    height, width = image.shape[:2]
    if width > _WIDTH_PX:
        height, width = round(height * _WIDTH_PX / width), _WIDTH_PX
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    data = base64.b64encode(jpeg.tobytes()).decode()
    return Picture(file.stem.partition("_")[2], f"data:image/jpeg;base64,{data}", width, height)

"""The pictures of a run, small enough to be part of a page."""

import base64
from dataclasses import dataclass
from pathlib import Path

_WIDTH_PX = 480
_MOST = 8
_MOST_BYTES = 600_000
"""Of all pictures together."""
_QUALITY = 82
PICTURES_NAME = "pictures"


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    name: str
    uri: str
    width_px: int
    height_px: int


def embedded(folder: Path) -> list[Picture]:
    """Scale the first pictures of a results folder down to `data:` URIs; leaves out what cannot be read."""
    found: list[Picture] = []
    room = _MOST_BYTES
    if not (folder / PICTURES_NAME).is_dir():
        return found
    # A client that has no OpenCV has drawn nothing either.
    import cv2

    # By sample index; what else somebody put there is none of the run's.
    files = [(file.name.partition("_")[0], file) for file in (folder / PICTURES_NAME).glob("*.jpg")]
    for _, file in sorted((int(number), file) for number, file in files if number.isdecimal())[:_MOST]:
        image = cv2.imread(str(file))
        if image is None:
            continue
        height, width = image.shape[:2]
        if width > _WIDTH_PX:
            height, width = round(height * _WIDTH_PX / width), _WIDTH_PX
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        data = base64.b64encode(jpeg.tobytes()).decode()
        room -= len(data)
        if room < 0:
            break
        found.append(Picture(file.stem.partition("_")[2], f"data:image/jpeg;base64,{data}", width, height))
    return found

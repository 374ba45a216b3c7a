"""A picture of a page by headless Chromium: no driver, no port, no further package."""

import html
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.errors import ConfigError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    *("--headless", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_COLOUR_SCHEMES = {"dark": 0, "light": 1}
"""Blink's numbers."""
_TIMEOUT_S = 60.0
_FRAME = (
    '<iframe width="{width_px}" frameborder="0" srcdoc="{content}" '
    'onload="document.title = this.contentDocument.documentElement.scrollHeight"></iframe>'
)


def find() -> str | None:
    """The browser's path; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def picture(browser: str, page: Path, *, width_px: int, height_px: int | None, theme: str) -> bytes:
    """A page as PNG: the whole of it, however long, or no more than so much from its top.

    Raises:
        ConfigError: the browser makes no picture, or takes too long.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        framed, drawn = Path(name, "frame.html"), Path(name, "page.png")
        command = [
            *(browser, *_OPTIONS, f"--user-data-dir={name}/profile"),
            f"--blink-settings=preferredColorScheme={_COLOUR_SCHEMES[theme]}",
            f"--force-device-scale-factor={2 if width_px < 600 else 1}",
            # Chromium's sandbox does not work for root.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        # In a frame, as a window is at least 500 px wide until its picture is taken.
        content = html.escape(page.read_text(encoding="utf-8"))
        framed.write_text(_FRAME.format(width_px=width_px, content=content), encoding="utf-8")
        if measured := re.search(r"<title>(\d+)</title>", _output(*command, "--dump-dom", framed.as_uri())):
            height = min(int(measured[1]), height_px or int(measured[1]))
            size = f"--window-size={width_px},{height}"
            _output(*command, size, f"--screenshot={drawn}", page.absolute().as_uri())
        if not drawn.exists():
            raise ConfigError(f"{browser} makes no picture; does it run headless by hand?")
        return drawn.read_bytes()


def _output(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=_TIMEOUT_S, check=False
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{command[0]} does not end within {_TIMEOUT_S:.0f} s") from error

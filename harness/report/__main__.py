"""`python -m harness.report RUN`: make a run's page again, and a picture of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.machine import command
from harness.machine.command import OneLineParser
from harness.report.screenshots import browser
from harness.report.write import write

_WIDTHS_PX = range(200, 4001)
_HEIGHTS_PX = range(100, 20001)


def parser() -> argparse.ArgumentParser:
    """All options."""
    result = OneLineParser(
        prog="./run.sh report",
        description="Write report.html into the folder of a run again, from its results.json and timeline.",
        epilog="Exit codes: 0 written; 2 bad input, or no browser.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("run", metavar="RUN", type=Path, help="a results folder, or the results.json in it")
    add("--screenshot", metavar="FILE.png", type=Path, help="also a picture of it, by headless Chromium")
    add("--theme", choices=("light", "dark"), default="light", help="of the picture (default %(default)s)")
    add("--width", metavar="PX", type=int, default=1280, help="of the picture (default %(default)s)")
    add("--height", metavar="PX", type=int, help="so much of the page, from its top (default: all of it)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body() -> None:
        options = parser().parse_args(arguments)
        _check("width", options.width, _WIDTHS_PX)
        if options.height is not None:
            _check("height", options.height, _HEIGHTS_PX)
        chromium = _chromium() if options.screenshot else None
        file = write(options.run)
        sys.stdout.write(f"{file}\n")
        if chromium:
            picture = browser.picture(
                chromium, file, width_px=options.width, height_px=options.height, theme=options.theme
            )
            options.screenshot.write_bytes(picture)
            sys.stdout.write(f"{options.screenshot}\n")

    return command.run(body)


def _check(name: str, given: int, possible: range) -> None:
    if given not in possible:
        raise ConfigError(f"--{name} {given} is impossible: it takes {possible[0]} to {possible[-1]} px")


def _chromium() -> str:
    found = browser.find()
    if found is None:
        raise ConfigError(
            f"--screenshot needs a browser on PATH ({', '.join(browser.NAMES)}); on Debian: "
            "apt-get install chromium"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())

"""How far a long step is: a live bar on a terminal, a line every few seconds elsewhere, nothing when quiet.

Quiet means that this module's logger is not enabled for INFO. Steps of under two seconds show nothing.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
Advance = Callable[[int], None]
"""Tells that so many more units are done; call it from one thread only."""

_SHOW_AFTER_S = 2.0
_LINE_EVERY_S = 5.0
BYTES = "bytes"


def bar(
    description: str, total: int | None, *, done: int = 0, unit: str = ""
) -> AbstractContextManager[Advance]:
    """Show the progress of the block that this is the context of.

    Args:
        description: what is being done, e.g. `preprocessing`.
        total: how much there is to do in all; None where that is unknown.
        done: how much of it was done before, e.g. by an interrupted download.
        unit: what is counted; `BYTES` is shown as MB.
    """
    if not logger.isEnabledFor(logging.INFO):
        return _silent()
    if sys.stderr.isatty():
        return _live(description, total, done, unit)
    return _lines(description, total, done, unit)


def track(items: Iterable[_T], description: str, total: int) -> Iterator[_T]:
    """Yield `items` and show how many of `total` were taken."""
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def _silent() -> Iterator[Advance]:
    yield lambda _: None


@contextmanager
def _lines(description: str, total: int | None, done: int, unit: str) -> Iterator[Advance]:
    started = time.monotonic()
    next_line = started + _SHOW_AFTER_S

    def advance(count: int) -> None:
        nonlocal done, next_line
        done += count
        now = time.monotonic()
        if now >= next_line:
            next_line = now + _LINE_EVERY_S
            logger.info("%s: %s after %.0f s", description, _amount(done, total, unit), now - started)

    yield advance


def _amount(done: int, total: int | None, unit: str) -> str:
    """`1200 of 50000 images (2%)`, in MB for bytes."""
    scale, unit = (1_000_000, "MB") if unit == BYTES else (1, unit)
    if not total:
        return f"{done // scale} {unit}".rstrip()
    return f"{done // scale} of {total // scale} {unit}".rstrip() + f" ({100 * done // total}%)"


@contextmanager
def _live(description: str, total: int | None, done: int, unit: str) -> Iterator[Advance]:
    amount = DownloadColumn() if unit == BYTES else MofNCompleteColumn()
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = display.add_task(description, total=total, completed=done)
    show_at = time.monotonic() + _SHOW_AFTER_S

    def advance(count: int) -> None:
        display.advance(task, count)
        if not display.live.is_started and time.monotonic() >= show_at:
            display.start()

    try:
        yield advance
    finally:
        if display.live.is_started:
            display.stop()

"""How far a long step is: a live bar on a terminal, a line every few seconds elsewhere, nothing when quiet.

Quiet means that this module's logger is not enabled for INFO. Steps of under two seconds show nothing. On a
terminal the log appears above the bar.
"""

import logging
import sys
import threading
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
from rich.table import Column

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
Advance = Callable[[int], None]
"""Tells that so many more units are done; call it from one thread only."""
Show = Callable[[str, float | None], None]
"""Shows a text in place of the one before, and how much of all is done, from 0 to 1, where that is known."""

_SHOW_AFTER_S = 2.0
_LINE_EVERY_S = 5.0
_LONG_STEP_S = 60.0
_LINE_OF_LONG_STEP_EVERY_S = 30.0
_REFRESH_S = 0.5
_BAR_WIDTH = 16
_REFRESHES_PER_S = 4
_displayed_now: list[Progress] = []
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


def take_down() -> None:
    """Give the terminal back, where a process ends without leaving the blocks that it is in."""
    for display in _displayed_now:
        display.stop()


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show how long the block that this is the context of is taking, where it cannot say how far it is."""
    with line() as show_line:
        began = time.monotonic()
        is_over = threading.Event()

        def count() -> None:
            while not is_over.wait(_REFRESH_S):
                show_line(f"{description}: {time.monotonic() - began:.0f} s", None)

        counting = threading.Thread(target=count, name="progress", daemon=True)
        counting.start()
        try:
            yield
        finally:
            is_over.set()
            counting.join()


def line() -> AbstractContextManager[Show]:
    """Show a text that the block writes anew a few times a second; from one thread only."""
    if not logger.isEnabledFor(logging.INFO):
        return _silent_line()
    if sys.stderr.isatty():
        return _live_line()
    return _plain_line()


@contextmanager
def _silent() -> Iterator[Advance]:
    yield lambda _: None


@contextmanager
def _silent_line() -> Iterator[Show]:
    yield lambda *_: None


@contextmanager
def _lines(description: str, total: int | None, done: int, unit: str) -> Iterator[Advance]:
    started = time.monotonic()
    is_due = _pace()

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if is_due():
            seconds = time.monotonic() - started
            logger.info("%s: %s after %.0f s", description, _amount(done, total, unit), seconds)

    yield advance


@contextmanager
def _plain_line() -> Iterator[Show]:
    is_due = _pace()

    def show(text: str, _fraction: float | None) -> None:
        if is_due():
            logger.info("%s", text)

    yield show


def _pace() -> Callable[[], bool]:
    """Whether it is time for another line; seldom in a step that takes long."""
    started = time.monotonic()
    next_line = started + _SHOW_AFTER_S

    def is_due() -> bool:
        nonlocal next_line
        now = time.monotonic()
        if now < next_line:
            return False
        next_line = now + (_LINE_EVERY_S if now < started + _LONG_STEP_S else _LINE_OF_LONG_STEP_EVERY_S)
        return True

    return is_due


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
        # It is for results, and may lead elsewhere.
        redirect_stdout=False,
        refresh_per_second=_REFRESHES_PER_S,
    )
    task = display.add_task(description, total=total, completed=done)
    with _displayed(display) as display_if_due:

        def advance(count: int) -> None:
            display.advance(task, count)
            display_if_due()

        yield advance


@contextmanager
def _live_line() -> Iterator[Show]:
    display = Progress(
        BarColumn(_BAR_WIDTH),
        # One line whatever the terminal's width, so that a child process can write over it.
        TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
        ),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        auto_refresh=False,
    )
    display.add_task("")
    (task,) = display.tasks
    with _displayed(display) as display_if_due:

        def show(text: str, fraction: float | None) -> None:
            task.description = text
            task.total, task.completed = None if fraction is None else 1.0, fraction or 0.0
            display_if_due()
            if display.live.is_started:
                display.refresh()

        yield show


@contextmanager
def _displayed(display: Progress) -> Iterator[Callable[[], None]]:
    """What puts the display on the terminal once the step has taken long enough."""
    show_at = time.monotonic() + _SHOW_AFTER_S
    stderr = sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stderr
    ]

    def display_if_due() -> None:
        if display.live.is_started or time.monotonic() < show_at:
            return
        _displayed_now.append(display)
        display.start()
        for handler in handlers:
            # Which rich has replaced by one that writes above the display.
            handler.setStream(sys.stderr)

    try:
        yield display_if_due
    finally:
        for handler in handlers:
            handler.setStream(stderr)
        if display in _displayed_now:
            display.stop()
            _displayed_now.remove(display)

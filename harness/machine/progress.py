"""How far a long step is: a live bar on a terminal, a line every few seconds elsewhere, nothing when quiet.

Quiet means that this module's logger is not enabled for INFO. Steps of under two seconds show nothing. On a
terminal the log appears above the bar. A child process that has `RELAY` in its environment leaves all that to
whoever reads its stderr, to whom it tells of every step (`relayed`).
"""

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
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
_BYTES_WIDTH = len("1023.9/1023.9 MB")
_REST_WIDTH = len(" 0:00:00  ")
"""Of the time that is left, and between the columns."""
_REDRAWN_EVERY_S = 0.2
RELAY = {"HARNESS_PROGRESS": "relay"}
_MARK = "\x1e"
"""Before what is told: ASCII's record separator, which no log has."""
_DUMB = ("dumb", "unknown")
"""Terminals that cannot write a line anew, as rich knows them."""
BYTES = "bytes"
_shown: list[Progress] = []
_Draw = Callable[[str, str, float, float | None], None]
"""What is being done, its figures in words, and as numbers: so much is done, of so much."""


@contextmanager
def bar(description: str, total: int | None, *, done: int = 0, unit: str = "") -> Iterator[Advance]:
    """Show the progress of the block that this is the context of.

    Args:
        description: what is being done, e.g. `preprocessing`.
        total: how much there is to do in all; None where that is unknown.
        done: how much of it was done before, e.g. by an interrupted download.
        unit: what is counted; `BYTES` is shown as MB.
    """
    began = time.monotonic()
    amount = DownloadColumn() if unit == BYTES else MofNCompleteColumn()
    # On a narrow terminal the words are cut short, not the figures.
    figures_width = _BYTES_WIDTH if unit == BYTES else 2 * len(str(total or "?")) + 1
    room = max(1, Console(stderr=True).width - _BAR_WIDTH - figures_width - _REST_WIDTH)
    columns = (_text_column(room), BarColumn(_BAR_WIDTH), amount, TimeRemainingColumn())
    with _renderer(columns, total, done) as draw:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            figures = f": {_amount(done, total, unit)} after {time.monotonic() - began:.0f} s"
            draw(description, figures, done, total)

        yield advance


def track(items: Iterable[_T], description: str, total: int) -> Iterator[_T]:
    """Yield `items` and show how many of `total` were taken."""
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def line() -> Iterator[Show]:
    """Show a text that the block writes anew a few times a second; from one thread only."""
    with _renderer((BarColumn(_BAR_WIDTH), _text_column())) as draw:
        yield lambda text, share: draw(text, "", share or 0.0, None if share is None else 1.0)


def _text_column(max_width: int | None = None) -> TextColumn:
    # One line whatever the terminal's width, so that a child process can write over it.
    column = Column(no_wrap=True, overflow="ellipsis", max_width=max_width)
    return TextColumn("{task.description}", markup=False, table_column=column)


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


@contextmanager
def relayed() -> Iterator[Callable[[str], bool]]:
    """Show what a child process tells of its steps: it takes the lines of stderr that are for it."""
    with contextlib.ExitStack() as step:
        shown: list[Show] = []

        def take(text: str) -> bool:
            if not text.startswith(_MARK):
                return False
            told = json.loads(text.removeprefix(_MARK))
            if told is None:
                step.close()
                shown.clear()
                return True
            if not shown:
                shown.append(step.enter_context(line()))
            shown[0](*told)
            return True

        yield take


def about(seconds: float) -> str:
    """`about 40 s`, `about 24 min`, `about 3 h`."""
    if seconds < _LONG_STEP_S * 1.5:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 100 else f"about {round(seconds / 3600)} h"


def is_terminal() -> bool:
    """Whether stderr is one that can write a line anew."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in _DUMB


def take_down() -> None:
    """Give the terminal back, where a process ends without leaving the blocks that it is in."""
    for display in _shown:
        display.stop()


def _renderer(
    columns: Sequence[ProgressColumn], total: int | None = None, done: int = 0
) -> AbstractContextManager[_Draw]:
    if logger.isEnabledFor(logging.INFO):
        if RELAY.items() <= os.environ.items():
            return _told()
        if is_terminal():
            return _live(columns, total, done)
    return _plain()


@contextmanager
def _told() -> Iterator[_Draw]:
    """Lines for `relayed`: the text and how much is done, a few times a second; null at the end."""
    next_time = 0.0

    def draw(text: str, figures: str, done: float, total: float | None) -> None:
        nonlocal next_time
        if (now := time.monotonic()) >= next_time:
            next_time = now + _REDRAWN_EVERY_S
            _tell([f"{text}{figures}", done / total if total else None])

    try:
        yield draw
    finally:
        _tell(None)


def _tell(what: object) -> None:
    sys.stderr.write(f"{_MARK}{json.dumps(what)}\n")
    sys.stderr.flush()


@contextmanager
def _plain() -> Iterator[_Draw]:
    """Lines of the log, far between."""
    is_due = _pace()

    def draw(text: str, figures: str, _done: float, _total: float | None) -> None:
        if is_due():
            logger.info("%s%s", text, figures)

    yield draw


@contextmanager
def _live(columns: Sequence[ProgressColumn], total: int | None, done: int) -> Iterator[_Draw]:
    """Columns on the terminal, once the step has taken long enough."""
    # stdout is for results, and may lead elsewhere.
    display = Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, auto_refresh=False
    )
    display.add_task("", total=total, completed=done)
    (task,) = display.tasks
    next_time = time.monotonic() + _SHOW_AFTER_S
    stderr = sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stderr
    ]

    def draw(text: str, _figures: str, done: float, total: float | None) -> None:
        nonlocal next_time
        task.total = total
        display.update(task.id, description=text, completed=done)
        if time.monotonic() < next_time:
            return
        next_time = time.monotonic() + _REDRAWN_EVERY_S
        if display in _shown:
            display.refresh()
            return
        _shown.append(display)
        display.start()
        for handler in handlers:
            # Which rich has replaced by one that writes above the display.
            handler.setStream(sys.stderr)

    try:
        yield draw
    finally:
        for handler in handlers:
            handler.setStream(stderr)
        if display in _shown:
            display.stop()
            _shown.remove(display)


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

"""How each of the converters' commands ends, and what is undone when a signal ends it."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import EXIT_INTERRUPTED
from harness.machine import command, progress

_pending: list[Callable[[], object]] = []
"""What is undone when a signal ends the process, the innermost last."""


def run(body: Callable[[], None]) -> int:
    """As `harness.machine.command.run`, and what is pending is undone when a signal ends the body."""
    # The harness, where that runs this, asks for no more than it shows itself.
    return command.run(body, level=os.environ.get("HARNESS_LOG", "INFO"), on_signal=_stop)


def log_all(*, is_debug: bool) -> None:
    """Carry `--debug` out: more log, and a traceback with an error."""
    if is_debug:
        logging.getLogger().setLevel(logging.DEBUG)


def end_on_signals() -> None:
    """From now on clean up and leave on Ctrl-C, SIGTERM and a closed terminal."""
    command.handle_signals(_stop)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Clean up and leave at once.

    Not by an exception: native modules that are being imported, or call back into Python, turn it into an
    error of their own, swallow it or abort (all three were seen).
    """
    run_pending()
    progress.take_down()
    sys.stderr.write("interrupted; what was there before is untouched\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)


@contextmanager
def on_signal(action: Callable[[], object]) -> Iterator[None]:
    """Call `action` if a signal ends the process within the block."""
    _pending.append(action)
    try:
        yield
    finally:
        _pending.remove(action)


@contextmanager
def ensured(action: Callable[[], object]) -> Iterator[None]:
    """Call `action` when the block ends, however it ends.

    Args:
        action: quick, and harmless when it is called twice.
    """
    with on_signal(action):
        try:
            yield
        finally:
            action()


def run_pending() -> None:
    """Call the actions of all blocks that have not ended, the innermost first."""
    for action in reversed(_pending):
        action()

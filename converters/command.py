"""How each of the converters' commands ends, and what is undone when a signal ends it."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import EXIT_INTERRUPTED, EXIT_USAGE, EXIT_VALID, HarnessError
from harness.machine import progress

logger = logging.getLogger(__name__)

_pending: list[Callable[[], object]] = []
"""What is undone when a signal ends the process, the innermost last."""


def run(body: Callable[[], None], *, is_debug: bool = False) -> int:
    """Run a command's work; return the exit code."""
    # The harness, where that runs this, asks for no more than it shows itself.
    level = logging.DEBUG if is_debug else os.environ.get("HARNESS_LOG", "INFO")
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    end_on_signals()
    try:
        body()
    except HarnessError as error:
        logger.debug("traceback", exc_info=True)
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        # A full disk, or a file that may not be read.
        logger.debug("traceback", exc_info=True)
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USAGE
    return EXIT_VALID


def end_on_signals() -> None:
    """From now on clean up and leave on Ctrl-C, SIGTERM and a closed terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _stop)


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

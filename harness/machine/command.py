"""How every command parses its options and ends: one line, an exit code."""

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from harness.errors import EXIT_INTERRUPTED, EXIT_USAGE, EXIT_VALID, ConfigError, HarnessError, nearest
from harness.machine.extras import how_to_install

logger = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object]
"""What Python calls on a signal."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front, and suggests the nearest option."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Argparse's own keeps to itself that a long help could not be written."""
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Argparse's callback."""
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        hint = nearest(unknown[1].split("=")[0], self._option_string_actions) if unknown else ""
        raise ConfigError(f"{message}{hint}; see --help")


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """A second signal is ignored, so that servers and workers are stopped to the end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(
    body: Callable[[], int | None],
    *,
    level: int | str = logging.INFO,
    on_signal: Handler = interrupt,
    interrupted: str = "interrupted",
) -> int:
    """Do what a command does; return the exit code, after one line on stderr if it failed.

    Args:
        body: all of it, from the parsing of the options on; returns an exit code, or nothing for success.
        level: of the log on stderr; with DEBUG, a failure has a traceback.
        on_signal: see `handle_signals`.
        interrupted: what is said when a signal has ended the body.
    """
    _open_closed_streams()
    log_to_stderr(level)
    handle_signals(on_signal)
    code = EXIT_VALID
    try:
        with reader_may_leave():
            code = body() or EXIT_VALID
    except (HarnessError, OSError) as error:
        # First, as whoever has started us takes the last line as the reason.
        logger.debug("traceback", exc_info=True)
        sys.stderr.write(f"error: {_reason(error)}\n")
        return error.exit_code if isinstance(error, HarnessError) else EXIT_USAGE
    except ModuleNotFoundError as error:
        logger.debug("traceback", exc_info=True)
        sys.stderr.write(f"error: {how_to_install(error.name or str(error))}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write(f"{interrupted}\n")
        return EXIT_INTERRUPTED
    return code


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Leave the block where whoever reads our output has gone (`| head`): that is no failure, nor news."""
    try:
        try:
            yield
        except SystemExit as left:
            # How rich says it; else argparse has printed its help.
            if not isinstance(left.__context__, BrokenPipeError):
                sys.stdout.flush()
                raise
        sys.stdout.flush()
    except BrokenPipeError:
        _write_to_nowhere()


def _write_to_nowhere() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: HarnessError | OSError) -> str:
    """What is wrong, without the system's number of it."""
    if isinstance(error, HarnessError) or not error.strerror:
        return str(error)
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    try:
        # Is it the disk that our output goes to, or another file?
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        # It still has what it could not write, and would try again at the end.
        _write_to_nowhere()
        return f"cannot write to stdout: {error.strerror}"
    return error.strerror


def leave_on_signals() -> None:
    """Leave at once on a signal, while a command's libraries are being imported.

    Native ones turn an exception into an error of their own (numpy: it "cannot be imported").
    """

    def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)

    handle_signals(leave)


def log_to_stderr(level: int | str, prefix: str = "") -> None:
    """Have this process write its log to stderr, each message after `prefix`."""
    logging.basicConfig(level=level, format=f"{prefix}%(message)s", stream=sys.stderr)


def handle_signals(handler: Handler) -> None:
    """Treat Ctrl-C, SIGTERM and SIGHUP (a closed terminal) alike, so that all is stopped on each of them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, handler)


def _open_closed_streams() -> None:
    """Write to nowhere where our parent has closed stdout or stderr, which are None then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # As the lowest free descriptor it is 1 or 2, which children inherit.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as we live

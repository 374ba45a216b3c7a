"""How every command parses its options and ends: one line, an exit code."""

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from harness.errors import EXIT_INTERRUPTED, EXIT_USAGE, EXIT_VALID, ConfigError, HarnessError, nearest

logger = logging.getLogger(__name__)


class CommandParser(argparse.ArgumentParser):
    """Ends the program without the usage in front of the error."""

    def error(self, message: str) -> NoReturn:
        """Argparse's callback."""
        self.exit(EXIT_USAGE, f"error: {message}; see --help\n")


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front, and suggests the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Argparse's callback."""
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        hint = nearest(unknown[1].split("=")[0], self._option_string_actions) if unknown else ""
        raise ConfigError(f"{message}{hint}; see --help")


class Ending:
    """How the program ends; set by the block that `one_line_errors` guards."""

    code = EXIT_VALID


@contextlib.contextmanager
def one_line_errors() -> Iterator[Ending]:
    """Turn whatever ends the block into an exit code and one line on stderr.

    SIGTERM and SIGHUP (a closed terminal) are treated as Ctrl-C, so that servers and workers are stopped on
    all of them; a second one is ignored, so that they are stopped to the end.
    """
    ending = Ending()
    _open_closed_streams()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        yield ending
    except HarnessError as error:
        ending.code = error.exit_code
        sys.stderr.write(f"error: {error}\n")
        logger.debug("traceback", exc_info=True)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ending.code = EXIT_USAGE
    except OSError as error:
        ending.code = EXIT_USAGE
        sys.stderr.write(f"error: {error}\n")
        logger.debug("traceback", exc_info=True)
    except KeyboardInterrupt:
        ending.code = EXIT_INTERRUPTED
        sys.stderr.write("interrupted\n")


def _open_closed_streams() -> None:
    """Write to nowhere where our parent has closed stdout or stderr, which are None then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # As the lowest free descriptor it is 1 or 2, which children inherit.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as we live


def _interrupt(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt

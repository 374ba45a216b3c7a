"""What can go wrong, and the exit code that each kind of failure ends the program with.

A message says what happened, on what, and what to do next. Only the command line prints errors and exits.
"""

import difflib
from collections.abc import Iterable

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_USAGE = 2
EXIT_SERVER = 3
EXIT_INTERRUPTED = 130


class HarnessError(Exception):
    """Root of every failure that a user can meet; `exit_code` is what the process ends with."""

    exit_code = EXIT_USAGE


class ConfigError(HarnessError):
    """An option, or a combination of options, that cannot be carried out."""


class DatasetError(HarnessError):
    """Images, labels or annotations that are missing, unreadable or contradict each other."""


class ConversionError(HarnessError):
    """Weights that are missing or corrupt, or an export that does not equal its source."""


class ServerError(HarnessError):
    """No usable server: unreachable, not ready, or serving something else under the model's name."""

    exit_code = EXIT_SERVER


class InferenceError(HarnessError):
    """The server accepted requests and then failed, lost or malformed them."""

    exit_code = EXIT_SERVER


class RequestFailed(InferenceError):
    """One inference was refused or lost; `is_fatal` where no later one can succeed either."""

    def __init__(self, message: str, *, is_fatal: bool) -> None:
        super().__init__(message)
        self.is_fatal = is_fatal


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion for a mistyped word, whatever its case, or nothing."""
    by_lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""

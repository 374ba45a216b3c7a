"""The command `mlperf-triton` of an installed package: what run.sh does with Python."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import EXIT_USAGE, EXIT_VALID, nearest

_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "bench": ("harness",),
    "check": ("harness", "--all", "--quick"),
    "limits": ("harness.bench",),
    "demo": ("harness.demo",),
    "tune": ("harness.tune",),
    "report": ("harness.report",),
    "compare": ("harness.compare",),
    "fetch": ("converters.fetch",),
    "convert": ("converters",),
    **{f"tritonserver-{word}": ("harness.server", word) for word in ("up", "status", "logs", "down")},
}
"""By the word: the module, and what comes before the user's options."""


def command_line(words: Sequence[str]) -> list[str] | None:
    """What python is to run, as `START MODULE OPTION ...`; None where the first word is none of ours."""
    found = _COMMANDS.get(words[0]) if words else None
    return [str(Path(__file__).with_name("start.py")), *found, *words[1:]] if found else None


def main() -> int:
    """Become the command; returns an exit code only where there is none."""
    words = sys.argv[1:]
    if command := command_line(words):
        # Where the user is, nothing may be imported from.
        os.execve(sys.executable, [sys.executable, *command], {**os.environ, "PYTHONSAFEPATH": "1"})
    if not words or words[0] in ("-h", "--help", "help"):
        known = "".join(f"  {word}\n" for word in _COMMANDS)
        sys.stdout.write(f"usage: mlperf-triton COMMAND [OPTIONS]\n\n{known}\nEvery command takes --help.\n")
        return EXIT_VALID
    sys.stderr.write(f"error: unknown command {words[0]!r}{nearest(words[0], _COMMANDS)}; see --help\n")
    return EXIT_USAGE

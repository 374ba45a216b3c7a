"""`python -m harness`."""

import _signal  # type: ignore[import-not-found]

if __name__ == "__main__":
    # At once, as in start.py: Ctrl-C may end it while it is still imported.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import sys

from harness.errors import EXIT_USAGE
from harness.machine import command

if __name__ == "__main__":
    command.leave_on_signals()
    try:
        from harness.cli import main
    except ModuleNotFoundError as missing:
        sys.stderr.write(
            f"error: {sys.executable} has no module {missing.name}: use ./run.sh bench, which installs what "
            "is needed, or .venv/bin/python\n"
        )
        sys.exit(EXIT_USAGE)
    sys.exit(main())

"""`python -m converters`."""

import sys

from converters import command
from harness.errors import EXIT_USAGE
from harness.machine.extras import how_to_install

if __name__ == "__main__":
    # Before the libraries are imported, which takes long enough for a Ctrl-C.
    command.end_on_signals()
    try:
        from converters.cli import main
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"error: {how_to_install(missing.name or str(missing))}\n")
        sys.exit(EXIT_USAGE)
    sys.exit(main())

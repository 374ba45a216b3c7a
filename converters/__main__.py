"""`python -m converters`."""

import sys

from converters import command

if __name__ == "__main__":
    # Before the libraries are imported, which takes long enough for a Ctrl-C.
    command.end_on_signals()
    from converters.cli import main

    sys.exit(main())

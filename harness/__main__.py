"""`python -m harness`."""

import sys

from harness.errors import EXIT_INTERRUPTED

try:
    from harness.cli import main

    sys.exit(main())
except KeyboardInterrupt:  # while the libraries were being imported
    sys.exit(EXIT_INTERRUPTED)

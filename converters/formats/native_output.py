"""Native libraries chat on file descriptor 2, past every logger; that is kept for --debug."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from converters import command

logger = logging.getLogger(__name__)


@contextmanager
def held_back() -> Iterator[None]:
    """Log what is written to file descriptor 2 at level DEBUG instead."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught, command.on_signal(lambda: os.dup2(kept, 2)):
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            logger.debug("%s", caught.read().decode(errors="replace").rstrip())

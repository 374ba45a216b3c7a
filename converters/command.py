"""How each of the converters' commands ends: an exit code, and one line on stderr if something is wrong."""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from harness.errors import EXIT_INTERRUPTED, EXIT_VALID, HarnessError

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(body: Callable[[], None], *, is_debug: bool = False) -> int:
    """Run a command's work; SIGTERM is treated as Ctrl-C, so that temporary folders go on both."""
    level = logging.DEBUG if is_debug else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        # A library may swallow the exception: the second signal kills. The next run cleans up after that.
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)
    try:
        body()
    except HarnessError as error:
        if not received:
            logger.debug("traceback", exc_info=True)
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
    except BaseException:
        # Native modules that are being imported turn the interruption into errors of their own.
        if not received:
            raise
    if received:
        sys.stderr.write("interrupted; what was there before is untouched\n")
        return EXIT_INTERRUPTED
    return EXIT_VALID

"""Options of the small commands: what is wrong with them is said in one line, as by `harness.cli`."""

import argparse
from typing import NoReturn

from harness.errors import EXIT_USAGE


class CommandParser(argparse.ArgumentParser):
    """Ends the program without the usage in front of the error."""

    def error(self, message: str) -> NoReturn:
        """Argparse's callback."""
        self.exit(EXIT_USAGE, f"error: {message}; see --help\n")

"""`python -m harness.report.screenshots.session FILE.svg COMMAND …`: run a command, draw what it printed."""

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from harness.errors import EXIT_USAGE
from harness.machine import command

_COLUMNS = 112
_FROM_ELSEWHERE = re.compile(r"<!--.*?-->\s*|@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""In rich's picture: a link, and fonts that would be fetched."""


def picture(command: Sequence[str], printed: str) -> str:
    """A terminal in SVG, with the command and what it printed; it names no address outside of itself."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text(f"$ {shlex.join(command)}", style="bold"))
    console.print(Text.from_ansi(printed.rstrip()))
    return console.export_svg(title=command[0], code_format=_FROM_ELSEWHERE.sub("", CONSOLE_SVG_FORMAT))


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code is the command's."""
    if len(arguments) < 2:
        sys.stderr.write(
            "usage: python -m harness.report.screenshots.session FILE.svg COMMAND [ARGUMENT ...]\n"
        )
        return EXIT_USAGE
    file, *words = arguments

    def body() -> int:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = []
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(line)
                lines.append(line)
        Path(file).write_text(picture(words, "".join(lines)), encoding="utf-8")
        return process.returncode

    return command.run(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

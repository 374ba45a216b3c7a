"""Argparse, from the options."""

import argparse
import textwrap
from typing import Any

from harness.machine.command import OneLineParser
from harness.run.config.options import GROUPS, Kind, Option

_USAGE = "./run.sh bench --model NAME --platform WORD [OPTION ...]"
_EPILOG = """\
Options also come from the file of --config, as `count = 100` or `scenario =
["Server", "Offline"]`; its paths are relative to it. The command line counts
before the file, the file before the profile, the profile before the model.

Exit codes: 0 valid; 1 INVALID, or accuracy below target; 2 bad usage or input;
3 server or inference failure; 130 interrupted.
"""
_HELP_COLUMN = 26


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Words such as ssd-resnet34-tf are to be found and copied whole.
        return textwrap.wrap(text, width, break_on_hyphens=False)


def parser() -> argparse.ArgumentParser:
    """All options; none has a default here, so that `resolution.resolve` can tell what was given."""
    result = OneLineParser(
        prog="./run.sh bench",
        usage=_USAGE,
        description="Run an MLPerf Inference vision benchmark against a Triton Inference Server.",
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    for title, options in GROUPS.items():
        group = result.add_argument_group(title)
        for option in options:
            add_option(group, option)
    return result


def add_option(group: argparse._ActionsContainer, option: Option) -> None:
    """Have an option taken, without a default."""
    how: dict[str, Any] = {"metavar": option.metavar}
    if option.kind == Kind.FLAG:
        how = {"action": "store_const", "const": True}
    elif option.kind == Kind.REFUSED:
        how = {"nargs": "?", "const": "", "metavar": "X"}
    elif option.kind == Kind.REPEATED:
        how["action"] = "append"
    group.add_argument(*option.flags, dest=option.name, help=option.help, **how)

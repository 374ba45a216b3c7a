"""The command line: options to RunConfig, results to stdout, errors to one line and an exit code."""

import argparse
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from harness import dry_run, result_file, runner
from harness.config import RunConfig
from harness.machine import files
from harness.machine.command import OneLineParser, one_line_errors
from harness.options import GROUPS, Kind
from harness.resolution import Invocation, invocation
from harness.results import Result, Unmeasured, print_sweep, print_table, reference_line

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", Result, Result | Unmeasured)

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
            if option.kind == Kind.FLAG:
                group.add_argument(
                    *option.flags, dest=option.name, action="store_const", const=True, help=option.help
                )
            elif option.kind == Kind.REFUSED:
                group.add_argument(
                    *option.flags, dest=option.name, nargs="?", const="", metavar="X", help=option.help
                )
            else:
                group.add_argument(*option.flags, dest=option.name, metavar=option.metavar, help=option.help)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # What is wrong with the options themselves has a traceback too.
    level = logging.DEBUG if "--debug" in words else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    with one_line_errors() as ending:
        given = vars(parser().parse_args(words))
        asked = invocation(given)
        logging.getLogger().setLevel(_level(asked.configs[0]))
        if asked.is_dry_run:
            dry_run.show(asked.configs)
        else:
            ending.code = _run(asked)
    return ending.code


def _level(config: RunConfig) -> int:
    return logging.DEBUG if config.debug else logging.WARNING if config.quiet else logging.INFO


def _run(asked: Invocation) -> int:
    """Carry out one request, or those of a sweep; return the exit code."""
    first = asked.configs[0]
    for note in dict.fromkeys(note for config in asked.configs for note in config.notes):
        logger.warning("note: %s", note)
    if asked.is_sweep:
        return _report(runner.run_all(asked.configs), print_sweep)
    return _report(_filed(first, runner.run(first)), print_table)


def _filed(config: RunConfig, results: Iterator[Result]) -> Iterator[Result]:
    """Keep --output FILE.json up to date with what was measured."""
    collected: list[Result] = []
    if config.output_file:
        files.check_writable(config.output_file.parent)
    for result in results:
        collected.append(result)
        if config.output_file:
            result_file.write(config.output_file, config, collected)
            logger.info("all scenarios so far: %s", config.output_file)
        yield result


def _report(results: Iterator[_Row], print_rows: Callable[[list[_Row]], None]) -> int:
    """Print each result as it comes, and all of them at the end, whatever ends them; return the exit code."""
    collected: list[_Row] = []
    try:
        for result in results:
            collected.append(result)
            if isinstance(result, Result):
                sys.stdout.write(reference_line(result) + "\n")
                sys.stdout.flush()
    finally:
        if collected:
            print_rows(collected)
    return max(result.exit_code for result in collected)

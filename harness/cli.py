"""The command line: options to RunConfig, results to stdout, errors to one line and an exit code."""

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from harness import dry_run, output_files, result_file, runner
from harness.config import RunConfig
from harness.errors import EXIT_INTERRUPTED, EXIT_USAGE, EXIT_VALID, ConfigError, HarnessError
from harness.option_values import nearest
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


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front, and suggests the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Argparse's callback."""
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        hint = nearest(unknown[1].split("=")[0], self._option_string_actions) if unknown else ""
        raise ConfigError(f"{message}{hint}; see --help")


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
        output_files.check_writable(config.output_file.parent)
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


class Ending:
    """How the program ends; set by the block that `one_line_errors` guards."""

    code = EXIT_VALID


@contextlib.contextmanager
def one_line_errors() -> Iterator[Ending]:
    """Turn whatever ends the block into an exit code and one line on stderr.

    SIGTERM and SIGHUP (a closed terminal) are treated as Ctrl-C, so that servers and workers are stopped on
    all of them; a second one is ignored, so that they are stopped to the end.
    """
    ending = Ending()
    _open_closed_streams()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        yield ending
    except HarnessError as error:
        ending.code = error.exit_code
        sys.stderr.write(f"error: {error}\n")
        logger.debug("traceback", exc_info=True)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ending.code = EXIT_USAGE
    except OSError as error:
        ending.code = EXIT_USAGE
        sys.stderr.write(f"error: {error}\n")
        logger.debug("traceback", exc_info=True)
    except KeyboardInterrupt:
        ending.code = EXIT_INTERRUPTED
        sys.stderr.write("interrupted\n")


def _open_closed_streams() -> None:
    """Write to nowhere where our parent has closed stdout or stderr, which are None then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # As the lowest free descriptor it is 1 or 2, which children inherit.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as we live


def _interrupt(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt

"""The command line: options to RunConfig, results to stdout, errors to one line and an exit code."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from harness.machine import command, files, paths
from harness.report.write import write_all_or_warn, write_or_warn
from harness.run import preparation, runner
from harness.run.config import settings
from harness.run.config.command_line import parser
from harness.run.config.resolution import Invocation, invocation
from harness.run.config.run_config import RunConfig
from harness.run.results.result import Result, Unmeasured, write_all
from harness.run.results.tables import print_sweep, print_table, reference_line

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", Result, Result | Unmeasured)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # What is wrong with the options themselves has a traceback too.
    level = logging.DEBUG if "--debug" in words else logging.INFO

    def body() -> int | None:
        given = vars(parser().parse_args(words))
        asked = _noted(invocation(given))
        logging.getLogger().setLevel(_level(asked.configs[0]))
        if not asked.is_dry_run:
            return _run(asked)
        for config in asked.configs:
            preparation.check_folders(config)
        settings.show(asked.configs)
        return None

    return command.run(body, level=level)


def _noted(asked: Invocation) -> Invocation:
    """With what can be said before a run, at the start as with --dry-run."""
    configs = (
        dataclasses.replace(config, notes=(*config.notes, *preparation.foreseen(config)))
        for config in asked.configs
    )
    return dataclasses.replace(asked, configs=tuple(configs))


def _level(config: RunConfig) -> int:
    return logging.DEBUG if config.output.debug else logging.WARNING if config.output.quiet else logging.INFO


def _run(asked: Invocation) -> int:
    """Carry out one request, or those of a sweep; return the exit code."""
    paths.make_home()
    first = asked.configs[0]
    for note in dict.fromkeys(note for config in asked.configs for note in config.notes):
        logger.warning("note: %s", note)
    if asked.is_sweep:
        return _report(runner.run_all(asked.configs), print_sweep)
    return _report(_filed(first, runner.run(first)), print_table)


def _filed(config: RunConfig, results: Iterator[Result]) -> Iterator[Result]:
    """Keep --output FILE.json up to date with what was measured."""
    collected: list[Result] = []
    if config.output.output_file:
        files.check_writable(config.output.output_file.parent)
    for result in results:
        collected.append(result)
        if config.output.output_file:
            write_all(config.output.output_file, config.changes.max_latency_s, collected)
            logger.info("all scenarios so far: %s", config.output.output_file)
        yield result


def _report(results: Iterator[_Row], print_rows: Callable[[list[_Row]], None]) -> int:
    """Print each result as it comes, and all of them at the end, whatever ends them; return the exit code."""
    collected: list[_Row] = []
    try:
        for result in results:
            collected.append(result)
            if isinstance(result, Result):
                write_or_warn(result.folder)
                with command.reader_may_leave():
                    sys.stdout.write(reference_line(result) + "\n")
    finally:
        if collected:
            with command.reader_may_leave():
                print_rows(collected)
    folders = [result.folder for result in collected if isinstance(result, Result)]
    if folders and (index := write_all_or_warn(folders)):
        with command.reader_may_leave():
            sys.stdout.write(f"All of them on one page: {index}\n")
    return max(result.exit_code for result in collected)

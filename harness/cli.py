"""The command line: options to RunConfig, results to stdout, errors to one line and an exit code."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

from harness import runner
from harness.config import DATASETS, TRANSPORTS, RunMode, resolve, sweep
from harness.errors import EXIT_INTERRUPTED, EXIT_USAGE, EXIT_VALID, ConfigError, HarnessError
from harness.model_config import DEVICES
from harness.models import MODELS
from harness.models.spec import Nms, Platform, Precision
from harness.results import Result, Unmeasured, print_sweep, print_table, reference_line
from harness.rounds import LATEST_ROUND, ROUNDS, Scenario

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", Result, Result | Unmeasured)


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        """Argparse's callback."""
        raise ConfigError(f"{message}; see --help")


def parser() -> argparse.ArgumentParser:
    """All options; none has a default here, so that `config.resolve` can tell what was given."""
    result = OneLineParser(
        prog="python -m harness",
        description="Run an MLPerf Inference vision benchmark against a Triton Inference Server.",
        epilog="Exit codes: 0 valid; 1 INVALID, or accuracy below target; 2 bad usage or input; "
        "3 server or inference failure; 130 interrupted.",
        allow_abbrev=False,
    )
    add = result.add_argument_group("what to run").add_argument
    add("--model", help=f"{', '.join(MODELS)}")
    add("--platform", help=f"{', '.join(Platform)}")
    add("--scenario", metavar="LIST", help=f"one or several of {','.join(Scenario)} (default SingleStream)")
    add("--mode", help=f"{', '.join(RunMode)} (default Performance)")
    add("--accuracy", action="store_const", const=True, help="add an accuracy test to a performance run")
    add("--weights", help="auto, seeded, official, or a file of your own (default auto: official if fetched)")
    add("--nms", help=f"{', '.join(Nms)}: ssd-resnet34 on pytorch; reference is MLPerf's, bug for bug")
    add(
        "--quick",
        action="store_const",
        const=True,
        help="a few samples in every scenario, with accuracy: are the answers right? (exit 0 if they are)",
    )
    add(
        "--all",
        action="store_const",
        const=True,
        help="every model on every platform, or those of --model or --platform, on one server",
    )

    add = result.add_argument_group("data").add_argument
    add("--dataset", help=f"{', '.join(DATASETS)} (default auto: yours if given, else synthetic)")
    add("--dataset-path", metavar="DIR", help="folder of ImageNet or COCO (default $DATA_DIR; see README)")
    add("--dataset-list", metavar="FILE", help="other labels than DIR's val_map.txt or annotation file")
    add("--cache", metavar="DIR", help="where preprocessed samples are kept")

    add = result.add_argument_group("rules, and how to shorten them (quick runs)").add_argument
    rounds = f"{next(iter(ROUNDS))} to {LATEST_ROUND}"
    add("--round", help=f"run by the rules of a round, {rounds}; refuses to be shortened")
    add("--count", metavar="N", help="use the first N images; without --time, end after N queries")
    add("--time", metavar="SECONDS", help="shortest duration instead of the round's")
    add("--max-latency", metavar="LIST", help="Server: latency bounds in seconds, a run for each")
    add("--qps", metavar="RATE", help="Server: offered rate; Offline: expected rate (default: calibrated)")

    add = result.add_argument_group("server").add_argument
    add(
        "--url",
        metavar="LIST",
        help="gRPC address of a Triton server, or of several (default: the running one, else one of our own)",
    )
    add("--transport", help=f"how samples travel: {', '.join(TRANSPORTS)} (auto: shared memory if possible)")
    add("--in-flight", metavar="N", help="most requests under way at each server (default: by scenario)")
    add("--client-processes", metavar="N", help="processes that send the requests (default: this one)")
    add("--device", help=f"{', '.join(DEVICES)} (auto: the GPU if the server has one)")
    add("--max-batchsize", metavar="N", help="most samples in one batch, here and on the server")
    add("--precision", help=f"{', '.join(Precision)}: openvino; auto (default) is bf16 on CPUs that have it")
    add("--threads", metavar="N", help="CPU threads that the server may use for the model (default: all)")

    add = result.add_argument_group("output").add_argument
    add("--output", metavar="DIR", help="where results folders are made (default results/)")
    add("--save-images", metavar="N", help="detectors: write N pictures with the boxes that were found")
    add("--debug", action="store_const", const=True, help="more log, and tracebacks")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in words
    logging.basicConfig(
        level=logging.DEBUG if is_debug else logging.INFO, format="%(message)s", stream=sys.stderr
    )
    with one_line_errors() as ending:
        given = vars(parser().parse_args(words))
        if given.pop("all"):
            ending.code = _report(runner.run_all(sweep(given)), print_sweep)
        else:
            ending.code = _report(runner.run(resolve(given)), print_table)
    return ending.code


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


def _interrupt(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt

"""The converters, run in a process of their own."""

import contextlib
import logging
import signal
import subprocess
import sys

from harness.errors import ConversionError
from harness.machine import progress
from harness.machine.processes import start_module

logger = logging.getLogger(__name__)


def run_converter(module: str, *options: str) -> str:
    """Run one of the converters' commands; its last line on stderr is the reason should it fail.

    Raises:
        ConversionError: it failed, or was killed.
    """
    # A framework's own debugging output would hide what the converter says.
    level = logging.getLevelName(max(logging.INFO, logger.getEffectiveLevel()))
    process = start_module(
        module,
        *options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        environment={"HARNESS_LOG": level, **progress.RELAY},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    last = ""
    try:
        with progress.relayed() as take:
            for line in process.stderr:
                if take(line):
                    continue
                last = line
                if not line.startswith("error: "):
                    sys.stderr.write(line)
        output = process.stdout.read()
        code = process.wait()
    except BaseException:
        # It removes its temporary folder on Ctrl-C; should it hang instead, it is killed.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.kill()
        raise
    if code > 0:
        raise ConversionError(last.strip().removeprefix("error: ") or f"python -m {module} failed")
    if code == -signal.SIGKILL:
        raise ConversionError(
            f"python -m {module} was killed, probably because memory ran out: close other programs, or give "
            "this machine or container more memory, and run again"
        )
    if code:
        raise ConversionError(f"python -m {module} was ended by {signal.Signals(-code).name}")
    return output

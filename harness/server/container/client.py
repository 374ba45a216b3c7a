"""Inside the client's container: `OPTION ...` is the benchmark; `fetch MODEL`, `convert --model MODEL`."""

import os
import sys
from collections.abc import Mapping, Sequence

from harness.errors import EXIT_USAGE, HarnessError
from harness.machine.paths import MODEL_REPOSITORY, RESULTS_DIR, STATE_DIR, weights_dir
from harness.server.container.owner import become_owner
from harness.server.container.server import KEY_FILE_VARIABLE
from harness.server.flags import KEY_HEADER

_MODULES = {"fetch": "converters.fetch", "convert": "converters"}


def command_line(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """What python is to run, as `-m MODULE OPTION ...`.

    The server's address and device and where its key is are the compose files' to say, in $TRITON_URL,
    $TRITON_DEVICE and $TRITON_KEY_FILE; options that are given come last, and count.
    """
    if arguments and arguments[0] in _MODULES:
        return ["-m", _MODULES[arguments[0]], *arguments[1:]]
    given = {"--url": environment.get("TRITON_URL"), "--device": environment.get("TRITON_DEVICE")}
    if key_file := environment.get(KEY_FILE_VARIABLE):
        given["--header"] = f"{KEY_HEADER}: @{key_file}"
    options = [word for option, value in given.items() if value for word in (option, value)]
    return ["-m", "harness", *options, *arguments]


def main(arguments: Sequence[str]) -> int:
    """Become the command, as the owner of the host's folder; returns an exit code only where that fails."""
    try:
        become_owner([RESULTS_DIR, MODEL_REPOSITORY, STATE_DIR, weights_dir()])
        os.execv(sys.executable, [sys.executable, *command_line(arguments, os.environ)])
    except (OSError, HarnessError) as error:
        sys.stderr.write(f"error: {error}\n")
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

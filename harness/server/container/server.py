"""Inside the server's container: `serve FLAG ...` runs tritonserver; `health URL`: is it ready?"""

import http.client
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from harness.server import hidden
from harness.server.container.owner import become_owner
from harness.server.flags import flags, hidden_control_flags, parse_version, write_key

KEY_FILE_VARIABLE = "TRITON_KEY_FILE"
"""Names the file that the server puts the key of its control into, and its client takes it from."""
GIVEN_KEY_VARIABLE = "TRITON_GIVEN_KEY_FILE"
"""Names a file that has a key already, in place of the former: several servers may share one, as a Secret."""

_ANSWER_TIMEOUT_S = 4

# Between SIGTERM and SIGKILL. Triton takes up to 2 s; `docker stop` gives 10, then it kills the container.
_GRACE_S = 5


def serve(given: Sequence[str]) -> int:
    """Run tritonserver, with the flags that its version has, and those given, until it ends or is told to.

    We stay its parent, rather than become it, so that an end that was asked for is bounded, and no failure:
    Triton's own exit code is then 1.

    Returns:
        Its exit code; 0 where we were told to end it.

    Raises:
        ValueError: $TRITON_SERVER_VERSION, which NVIDIA's images set, is not a version; or there is no key.
        OSError: tritonserver cannot be started, or the key's file not written or read.
    """
    version = parse_version(os.environ.get("TRITON_SERVER_VERSION", ""))
    control = hidden_control_flags(_key())
    command = ["tritonserver", *given, *flags(version, len(os.sched_getaffinity(0)))]
    server: subprocess.Popen[bytes] | None = None
    is_told = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_told
        is_told = True
        signal.alarm(_GRACE_S)
        if server:
            server.terminate()

    def kill(_number: int, _frame: FrameType | None) -> None:
        sys.stderr.write(f"tritonserver did not end within {_GRACE_S} s: killed\n")
        if server:
            server.kill()

    # A container's first process does not even notice a signal that it has no handler for, and any other dies
    # of it and leaves the server alone: they must be there before the server is.
    for number, handler in {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGALRM: kill}.items():
        signal.signal(number, handler)
    try:
        server = hidden.start([*command, *control], control)
    except hidden.CannotHide as error:
        sys.stderr.write(f"users of the host can read the key of this server's control: {error}\n")
        server = subprocess.Popen([*command, *control.values()])
    if is_told:
        server.terminate()
    code = server.wait()
    return 0 if is_told else code if code >= 0 else 128 - code


def _key() -> str:
    """The key of this server's control: one that was given, else a new one for its client to read."""
    if given := os.environ.get(GIVEN_KEY_VARIABLE):
        become_owner()
        key = Path(given).read_text(encoding="ascii").strip()
        if not key:
            raise ValueError(f"{given} has no key")
        return key
    if not os.environ.get(KEY_FILE_VARIABLE):
        raise ValueError(f"${KEY_FILE_VARIABLE} does not say where to put the key of its control")
    file = Path(os.environ[KEY_FILE_VARIABLE])
    become_owner([file.parent])
    return write_key(file)


def is_healthy(url: str) -> bool:
    """Whether the server says that it is ready."""
    # Without the proxy of $http_proxy, which knows nothing of this container's ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ANSWER_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException, ValueError):  # nothing there, no web server, no address
        return False


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit code."""
    match arguments:
        case ["serve", *given]:
            try:
                return serve(given)
            except (OSError, ValueError) as error:
                sys.stderr.write(f"error: cannot start tritonserver: {error}\n")
                return 2
        case ["health", url]:
            return 0 if is_healthy(url) else 1
    sys.stderr.write("usage: python3 -m harness.server.container.server serve FLAG ... | health URL\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Inside the server's container: `serve FLAG ...` becomes tritonserver; `health URL`: is it ready?"""

import http.client
import os
import sys
import urllib.request
from collections.abc import Sequence

from harness.container.owner import become_owner
from harness.server_flags import flags, parse_version

_ANSWER_TIMEOUT_S = 4


def serve(given: Sequence[str]) -> None:
    """Become tritonserver, with the flags that its version has, and those given.

    Raises:
        ValueError: $TRITON_SERVER_VERSION, which NVIDIA's images set, is not a version.
    """
    version = parse_version(os.environ.get("TRITON_SERVER_VERSION", ""))
    become_owner()
    os.execvp("tritonserver", ["tritonserver", *given, *flags(version, len(os.sched_getaffinity(0)))])


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
                serve(given)
            except (OSError, ValueError) as error:
                sys.stderr.write(f"error: cannot start tritonserver: {error}\n")
                return 2
        case ["health", url]:
            return 0 if is_healthy(url) else 1
    sys.stderr.write("usage: python3 -m harness.container.server serve FLAG ... | health URL\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Reading a server's metrics, which Triton has on an HTTP port of their own."""

import http.client
import urllib.error
import urllib.request

from harness.errors import ServerError

_TIMEOUT_S = 2.0
_LARGEST_BYTES = 16 << 20
"""Far beyond a server with thousands of models; what goes on for ever are no metrics."""

# Without the proxy of $http_proxy, as gRPC has none here either.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def read(url: str) -> str:
    """The metrics as they are now, in Prometheus' text format.

    Raises:
        ServerError: nothing answers there, or no web server; says what to do.
    """
    if not url:
        raise ServerError("nobody knows where its metrics are: say it with --metrics-url")
    try:
        with _opener.open(url, timeout=_TIMEOUT_S) as answer:
            return str(answer.read(_LARGEST_BYTES).decode("utf-8", "replace"))
    except urllib.error.URLError as error:
        reason = error.reason.strerror if isinstance(error.reason, OSError) else error.reason
        why = str(reason or error.reason).lower()
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        why = str(error).lower() or type(error).__name__
    raise ServerError(f"no metrics at {url} ({why}): see --metrics-url")

"""Headless Chromium by its DevTools protocol, over a pair of pipes: no driver, no port, no further package.

The protocol: https://chromedevtools.github.io/devtools-protocol/. With --remote-debugging-pipe, Chromium
reads commands from descriptor 3 and writes answers and events to descriptor 4, as JSON with a zero byte after
each.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError

_ANSWER_TIMEOUT_S = 60.0
_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
_DIED = "the browser has ended by itself; does it run headless by hand?"
_FREE_DESCRIPTOR = 10
"""From here on no descriptor is 3 or 4, which are the browser's."""


@dataclass
class Tab:
    """One page. `events` are those that came so far: method and parameters."""

    commands: int
    answers: int
    session: str = ""
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _number: int = 0
    _received: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Carry a command out and return its result.

        Raises:
            ConfigError: the browser refuses, has died, or does not answer.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        try:
            os.write(self.commands, json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise ConfigError(_DIED) from error
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise ConfigError(f"the browser refuses {method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def evaluate(self, script: str) -> Any:
        """The JSON value of a JavaScript expression on the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise ConfigError(f"the page's script failed: {answer['exceptionDetails'].get('text')}")
        return answer["result"].get("value")

    def open(self, file: Path) -> None:
        """Load a file and wait until all of it is there."""
        self.events.clear()
        self.call("Page.navigate", url=file.absolute().as_uri())
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._note(self._next(deadline))

    def show_as(self, *, width_px: int, theme: str = "light", medium: str = "screen") -> None:
        """Have the page laid out so wide, in a theme (light or dark), for the screen or for print."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=900,
            deviceScaleFactor=2 if width_px < 600 else 1,
            mobile=width_px < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", media=medium, features=features)

    def _note(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))

    def _next(self, deadline: float) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ConfigError(f"the browser does not answer within {_ANSWER_TIMEOUT_S:.0f} s")
            block = os.read(self.answers, 1 << 20)
            if not block:
                raise ConfigError(_DIED)
            self._received += block
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def tab(browser: str) -> Iterator[Tab]:
    """A tab of a browser of its own, which ends with the block; events of network and log are on.

    Raises:
        ConfigError: it cannot be started.
    """
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        process, commands, answers = _start(browser, profile)
        stack.callback(_end, process)
        stack.callback(os.close, commands)
        stack.callback(os.close, answers)
        page = Tab(commands, answers)
        targets = page.call("Target.getTargets")["targetInfos"]
        target = next(info["targetId"] for info in targets if info["type"] == "page")
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        yield page


def _start(browser: str, profile: str) -> tuple[int, int, int]:
    """Start a browser: its process, and our ends of the pipes for commands and for answers."""
    # Chromium's sandbox does not work for root.
    options = [*_OPTIONS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    (their_commands, commands), (answers, their_answers) = _pipe(), _pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        process = os.posix_spawn(
            browser,
            [browser, *options, "about:blank"],
            os.environ,
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)),
                (os.POSIX_SPAWN_DUP2, their_commands, 3),
                (os.POSIX_SPAWN_DUP2, their_answers, 4),
            ],
            setpgroup=0,
        )
    except OSError as error:
        os.close(commands)
        os.close(answers)
        raise ConfigError(f"{browser} cannot be started: {error.strerror}") from error
    finally:
        # Ours must not stay open: the pipe ends when the browser does.
        for end in (their_commands, their_answers, null):
            os.close(end)
    return process, commands, answers


def _pipe() -> tuple[int, int]:
    """The ends of a pipe to read from and to write to, numbered so that neither is 3 or 4."""
    low = os.pipe()
    reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FREE_DESCRIPTOR) for end in low)
    for end in low:
        os.close(end)
    return reader, writer


def _end(process: int) -> None:
    """Kill the browser with all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)

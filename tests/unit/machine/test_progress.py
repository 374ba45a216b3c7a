import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from harness.machine import progress
from harness.machine.paths import PROJECT_ROOT


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "_SHOW_AFTER_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_away_from_a_terminal_there_are_plain_lines(caplog):
    caplog.set_level(logging.INFO)
    assert list(progress.track("abcd", "reading", 4)) == ["a", "b", "c", "d"]
    assert [record.getMessage() for record in caplog.records] == [
        f"reading: {done} of 4 ({25 * done}%) after 0 s" for done in (1, 2, 3, 4)
    ]


@pytest.mark.usefixtures("impatient")
def test_bytes_are_shown_as_megabytes_from_where_an_earlier_try_stopped(caplog):
    caplog.set_level(logging.INFO)
    with progress.bar("fetching", 8_000_000, done=2_000_000, unit=progress.BYTES) as advance:
        advance(2_000_000)
    with progress.bar("fetching", None, unit=progress.BYTES) as advance:
        advance(3_000_000)
    assert [record.getMessage() for record in caplog.records] == [
        "fetching: 4 of 8 MB (50%) after 0 s",
        "fetching: 3 MB after 0 s",
    ]


def test_a_short_step_shows_nothing(caplog):
    caplog.set_level(logging.INFO)
    list(progress.track(range(100), "reading", 100))
    assert not caplog.records


@pytest.mark.usefixtures("impatient")
def test_quiet_means_silent(caplog):
    caplog.set_level(logging.WARNING)
    list(progress.track(range(100), "reading", 100))
    assert not caplog.records


def test_a_step_that_cannot_say_how_far_it_is_says_how_long_it_takes(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_SHOW_AFTER_S", 0.05)
    monkeypatch.setattr(progress, "_REFRESH_S", 0.01)
    caplog.set_level(logging.INFO)
    with progress.waiting("exporting"):
        time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records] == ["exporting: 0 s"]


def test_long_steps_have_fewer_lines(monkeypatch):
    clock = iter([0, *range(130)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    is_due = progress._pace()
    lines = [second for second in range(130) if is_due()]
    assert lines == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47, 52, 57, 62, 92, 122]


CHILD = """
import logging, signal, sys, time
from harness.machine import progress
logging.basicConfig(level=sys.argv[1], format="%(message)s")
progress._SHOW_AFTER_S = 0.0
progress._REFRESH_S = 0.05
if sys.argv[2] == "track":
    for number in progress.track(range(5), "reading", 5):
        time.sleep(0.05)
        if number == 2:
            logging.warning("a word in between")
else:
    with progress.waiting("reading 5/5"):
        time.sleep(0.2)
        logging.warning("a word in between")
        time.sleep(0.2)
        if sys.argv[2] == "interrupted":
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                logging.warning("interrupted")
print("done")
"""


@pytest.mark.parametrize("kind", ["track", "waiting", "interrupted"])
@pytest.mark.parametrize(("level", "is_shown"), [("INFO", True), ("WARNING", False)])
def test_on_a_terminal_there_is_a_bar_that_goes_away(level, is_shown, kind):
    terminal, stderr = pty.openpty()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, level, kind],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        check=False,
        timeout=120,
    )
    os.close(stderr)
    shown = drain(terminal)
    assert child.stdout == (b"" if kind == "interrupted" else b"done\n")
    assert (b"reading" in shown and b"5/5" in shown) == is_shown
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == int(is_shown)  # cursor off, cursor on
    # The log has a line of its own above the bar.
    if is_shown:
        assert b"\x1b[2Ka word in between\r\n" in shown


WIDE = """
import fcntl, logging, struct, sys, termios, time
from harness.machine import progress
logging.basicConfig(level="INFO", format="%(message)s")
progress._SHOW_AFTER_S = 0.0
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 58, 0, 0))
for number in progress.track(range(50000), "preprocessing imagenet_mobilenet", 50000):
    if number % 10000 == 0:
        time.sleep(0.3)
with progress.line() as show:
    show("resnet50_onnxruntime: comparing with its source, which takes a while: 12 s", 0.5)
"""


def on_a_terminal(script, term):
    terminal, stderr = pty.openpty()
    environment = {**os.environ, "TERM": term}
    environment.pop("COLUMNS", None)
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT_ROOT,
        stderr=stderr,
        env=environment,
        check=True,
        timeout=120,
    )
    os.close(stderr)
    return drain(terminal).decode()


def test_a_bar_fits_a_narrow_terminal():
    shown = re.sub(r"\x1b\[[\d?]*[A-Za-z]", "", on_a_terminal(WIDE, "xterm"))
    lines = [line for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert any(re.match(r"preproces.*50000/50000 ", line) for line in lines)
    assert any("comparing" in line for line in lines)
    assert max(map(len, lines)) <= 58


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_write_a_line_anew_has_plain_lines(term):
    shown = on_a_terminal(WIDE, term)
    assert "preprocessing imagenet_mobilenet: 1 of 50000 (0%) after 0 s\r\n" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (42.4, "42 s"), (89, "89 s"), (91, "2 min"), (1440, "24 min"), (10_800, "3 h")],
)
def test_how_long_is_said_about(seconds, words):
    assert progress.about(seconds) == f"about {words}"


def drain(terminal):
    shown = b""
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # nobody holds the other end any more
            os.close(terminal)
            return shown
        shown += block

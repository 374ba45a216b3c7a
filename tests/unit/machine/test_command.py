"""Every command says in one line what is wrong, and ends with the exit code of that."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from converters import cli, configs, source
from converters.fetch import __main__
from harness.bench.__main__ import main as bench
from harness.cli import main as harness
from harness.compare.__main__ import main as compare
from harness.errors import ConfigError, HarnessError, ServerError
from harness.machine import command
from harness.machine.paths import PROJECT_ROOT
from harness.report.__main__ import main as report
from harness.server.__main__ import main as server
from harness.tune.__main__ import main as tune

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers_are_ours_again() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (server, []),
        (server, ["up", "--grpc-port", "0"]),
        (server, ["logs", "--lines", "x"]),
        (cli.main, ["--bogus"]),
        (configs.main, ["--bogus"]),
        (__main__.main, []),
        (source.main, ["--batch", "0"]),
        (harness, ["--bogus"]),
        (bench, ["--bogus"]),
        (tune, ["--bogus"]),
        (report, []),
        (compare, []),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    main: Callable[[Sequence[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith("; see --help\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize("main", [cli.main, configs.main, __main__.main])
def test_the_nearest_option_is_told_by_every_command(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "mobilenet", "--hepl"]) == 2
    assert "--hepl (did you mean --help?); see --help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (ConfigError("--count 0 is impossible"), 2, "error: --count 0 is impossible\n"),
        (ServerError("no server"), 3, "error: no server\n"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (OSError(13, "Permission denied", "/a/b"), 2, "error: /a/b: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            2,
            "error: torch is not installed; in this project's folder: pip install '.[pytorch]', or "
            "./run.sh setup for all\n",
        ),
    ],
)
def test_what_ends_a_command_is_one_line_and_an_exit_code(
    failure: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        raise failure

    assert command.run(body) == code
    assert capsys.readouterr().err == line


def test_a_mistake_of_ours_is_no_users_error() -> None:
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 // 0)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_the_body_may_choose_the_exit_code(returned: int | None, code: int) -> None:
    assert command.run(lambda: returned) == code


def test_the_body_has_the_last_word_on_what_an_interruption_leaves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    assert command.run(body, interrupted="interrupted; it goes on next time") == 130
    assert capsys.readouterr().err == "interrupted; it goes on next time\n"


BEGIN = """
import logging, signal, sys
from harness.errors import ConfigError, HarnessError
from harness.machine import command
"""


def ended(script: str, *words: str, **streams: int) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + script, *words],
        cwd=PROJECT_ROOT,
        text=True,
        timeout=120,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


@pytest.mark.parametrize(("level", "lines"), [("INFO", 1), ("DEBUG", 8)])
def test_a_traceback_is_for_who_debugs_and_the_reason_is_the_last_line(level: str, lines: int) -> None:
    script = "def body():\n    raise HarnessError('no luck')\n"
    done = ended(script + "sys.exit(command.run(body, level=sys.argv[1]))", level)
    assert done.returncode == HarnessError.exit_code == 2
    said = done.stderr.splitlines()
    assert said[-1] == "error: no luck"
    assert len(said) == lines
    assert ("Traceback (most recent call last):" in said) == (level == "DEBUG")


TWICE = """
def body():
    try:
        signal.raise_signal(int(sys.argv[1]))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        print("all is stopped")
sys.exit(command.run(body))
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_interrupts_once_so_that_what_was_started_is_stopped(number: signal.Signals) -> None:
    done = ended(TWICE, str(int(number)))
    assert (done.returncode, done.stdout, done.stderr) == (130, "all is stopped\n", "interrupted\n")


def test_a_closed_terminal_is_nothing_to_a_command_under_nohup() -> None:
    script = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "sys.exit(command.run(lambda: signal.raise_signal(signal.SIGHUP)))\n"
    )
    assert ended(script).returncode == 0


PRINTS = {
    "print": "lambda: print('a table')",
    "rich": "lambda: __import__('rich.console').console.Console().print('a table')",
    "help": "lambda: command.OneLineParser().parse_args(['--help'])",
}


@pytest.mark.parametrize("body", PRINTS.values(), ids=PRINTS)
def test_a_reader_that_has_gone_is_told_nothing_and_is_no_failure(body: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = ended(f"sys.exit(command.run({body}))", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_done_goes_on_where_its_reader_has_gone() -> None:
    script = (
        "def body():\n    with command.reader_may_leave():\n        print('a line')\n"
        "    sys.stderr.write('measured\\n')\n    return 1\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = ended(script + "sys.exit(command.run(body))", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "measured\n")


# Longer than what is held back until the end.
LONG_HELP = "lambda: command.OneLineParser(description='word ' * 10000).parse_args(['--help'])"


@pytest.mark.parametrize(
    "body", [PRINTS["print"], PRINTS["rich"], LONG_HELP], ids=["print", "rich", "long help"]
)
def test_an_output_that_takes_nothing_is_one_line_that_says_which(body: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = ended(f"sys.exit(command.run({body}))", stdout=full)
    os.close(full)
    assert (done.returncode, done.stderr) == (2, "error: cannot write to stdout: No space left on device\n")


# As numpy's own modules do while they are being imported.
IMPORTED = """
import signal, sys, time
try:
    if sys.argv[1] == "interrupted":
        signal.raise_signal(signal.SIGINT)
except BaseException as error:
    raise ImportError("cannot be imported") from error
print(__name__, sys.argv)
"""


@pytest.mark.parametrize(
    ("word", "code", "said", "log"),
    [("interrupted", 130, "", "interrupted\n"), ("x", 0, "__main__ ['FOLDER/a_command.py', 'x']\n", "")],
)
def test_ctrl_c_ends_a_command_whose_libraries_are_being_imported(
    tmp_path: Path, word: str, code: int, said: str, log: str
) -> None:
    (tmp_path / "a_command.py").write_text(IMPORTED)
    done = subprocess.run(
        [sys.executable, "harness/start.py", "a_command", word],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONPATH": f"{PROJECT_ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, said.replace("FOLDER", str(tmp_path)), log)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_our_parent_has_closed_is_nowhere(stream: str) -> None:
    script = (
        f"sys.{stream} = None\n"
        "def body():\n    print('a table')\n    logging.info('a word')\n    raise ConfigError('no luck')\n"
        "sys.exit(command.run(body))\n"
    )
    done = ended(script)
    assert done.returncode == 2
    assert done.stdout == ("" if stream == "stdout" else "a table\n")
    assert done.stderr == ("" if stream == "stderr" else "a word\nerror: no luck\n")


def test_a_worker_writes_over_the_bar_of_who_started_it() -> None:
    done = ended("command.log_to_stderr('INFO', '> ')\nlogging.info('a word')")
    assert done.stderr == "> a word\n"


def test_the_log_is_set_up_once(caplog: pytest.LogCaptureFixture) -> None:
    handlers = list(logging.getLogger().handlers)
    assert command.run(lambda: logging.getLogger(__name__).warning("a word")) == 0
    assert logging.getLogger().handlers == handlers
    assert caplog.messages == ["a word"]

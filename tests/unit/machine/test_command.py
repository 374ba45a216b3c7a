"""Every command says in one line what is wrong with its options."""

from collections.abc import Callable, Sequence

import pytest

from converters import cli, configs, source
from converters.fetch import __main__
from harness.server.__main__ import main as server


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
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    main: Callable[[Sequence[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith("; see --help\n")
    assert error.count("\n") == 1

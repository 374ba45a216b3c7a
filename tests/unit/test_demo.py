"""What the demo says of itself."""

import shlex

import pytest

from harness import demo
from harness.run.config.command_line import parser


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_of_the_demo_is_its_own_and_has_the_command_that_it_stands_for(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.demo(["--time", "5", word]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: ./run.sh demo [OPTION ...]\n")
    assert max(map(len, said.splitlines())) <= 80
    pasted = said[said.index("./run.sh bench") : said.index("\n\noptions")].replace("\\\n", " ")
    words = shlex.split(pasted)
    assert words == ["./run.sh", "bench", *demo.OPTIONS]
    assert vars(parser().parse_args(words[2:]))["model"] == "mobilenet"

import re
import sys
from pathlib import Path

from harness.report.screenshots import session


def test_a_session_shows_the_command_and_what_it_printed_and_asks_the_network_for_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "session.svg"
    assert session.main([str(file), sys.executable, "-c", "print('42 samples/s'); raise SystemExit(1)"]) == 1
    svg = file.read_text()
    assert "42&#160;samples/s" in svg
    assert "print(" in svg
    addresses = set(re.findall(r"https?://[^\"')\s]+", svg))
    assert addresses == {"http://www.w3.org/2000/svg"}, addresses


def test_a_command_that_cannot_be_run_is_one_line_and_exit_code_2(tmp_path: Path, capsys) -> None:
    assert session.main([str(tmp_path / "session.svg"), "/nowhere/command"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1

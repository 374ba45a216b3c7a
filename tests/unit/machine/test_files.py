"""What a run writes: whole or not at all; a disk that takes nothing is named."""

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.machine import files


def test_a_file_is_written_and_nothing_else(tmp_path: Path) -> None:
    files.write(tmp_path / "results.json", "1\n")
    files.write(tmp_path / "results.json", "2\n")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("results.json", "2\n")]


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "results.json").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write .*/results\.json: Is a directory"):
        files.write(tmp_path / "results.json", "1\n")
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_disk_that_is_full_is_found_out_before_the_run_and_by_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: Path) -> Path:
        (tmp_path / name.name).symlink_to("/dev/full")
        return tmp_path / name.name

    monkeypatch.setattr(files.os, "getpid", lambda: 7)
    full(Path(".probe-7"))
    with pytest.raises(
        ConfigError, match=r"cannot write results to .*: No space left on device; see --output"
    ):
        files.check_writable(tmp_path)
    full(Path(".page.html.7"))
    with pytest.raises(ConfigError, match=r"cannot write .*/page\.html: No space left on device"):
        files.write(tmp_path / "page.html", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["file/below", "file"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write results to"):
        files.check_writable(tmp_path / folder)


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []

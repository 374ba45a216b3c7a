"""What a run writes: whole or not at all; a disk that takes nothing is named."""

import os
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.machine import files


@pytest.mark.parametrize("is_locked", [False, True])
def test_what_was_there_stays_until_the_block_has_ended(tmp_path: Path, is_locked: bool) -> None:
    file = tmp_path / "labels.npy"
    file.write_text("old")
    with files.whole(file, is_locked=is_locked) as partial:
        partial.write_text("new")
        assert (file.read_text(), partial.parent, partial.name[0]) == ("old", tmp_path, ".")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("labels.npy", "new")]


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "page.html")
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "page.html").read_text() == "new"


def test_nothing_takes_the_place_of_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe: it is no regular file"):
        files.write(tmp_path / "pipe", "new")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    file = tmp_path / "labels.npy"
    file.write_text("old")
    with pytest.raises(failure), files.whole(file) as partial:  # noqa: PT012 - the block is what fails
        partial.write_text("half")
        raise failure
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("labels.npy", "old")]


def test_a_block_that_writes_nothing_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.whole(tmp_path / "labels.npy"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_written_over_by_whoever_holds_the_lock(tmp_path: Path) -> None:
    with files.whole(tmp_path / "weights.pb", is_locked=True) as left_behind:
        left_behind.write_text("a whole file")
    left_behind.write_text("half")
    with files.whole(tmp_path / "weights.pb", is_locked=True) as partial:
        partial.write_text("another")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["another"]


def test_two_processes_that_write_one_file_do_not_share_what_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with files.whole(tmp_path / "labels.npy") as first:
        monkeypatch.setattr(files.os, "getpid", lambda: 7)
        with files.whole(tmp_path / "labels.npy") as second:
            second.write_text("second")
        first.write_text("first")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]


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
    full(Path(".page.html.7.tmp"))
    with pytest.raises(ConfigError, match=r"cannot write .*/page\.html: No space left on device"):
        files.write(tmp_path / "page.html", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "reason"), [("file/below", "Not a directory"), ("file", "it is no folder")]
)
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, folder: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"cannot write results to .*: {reason}; see --output"):
        files.check_writable(tmp_path / folder)
    with pytest.raises(ConfigError, match=f"cannot write samples to .*: {reason}; see --cache"):
        files.check_writable(tmp_path / folder, "samples", "--cache")


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []

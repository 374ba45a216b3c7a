import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from converters.conversion import publish
from harness.errors import ConversionError
from harness.machine.paths import PROJECT_ROOT


def _publish(repository: Path, entry: str, text: str, failure: BaseException | None = None) -> None:
    with publish.claim(repository, entry), publish.staged(repository, entry) as staging:
        (staging / "1" / "model.onnx").write_text(text)
        if failure:
            raise failure


def _hidden(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.glob(".*"))


def test_an_entry_appears_only_when_its_block_has_ended(tmp_path):
    with publish.claim(tmp_path, "net"):
        with publish.staged(tmp_path, "net") as staging:
            (staging / "1" / "model.onnx").write_text("new")
            assert not (tmp_path / "net").exists()
        assert (tmp_path / "net" / "1" / "model.onnx").read_text() == "new"
    assert _hidden(tmp_path) == []


def test_a_second_publication_replaces_the_first_and_leaves_nothing_behind(tmp_path):
    _publish(tmp_path, "net", "old")
    _publish(tmp_path, "net", "new")
    assert (tmp_path / "net" / "1" / "model.onnx").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("failure", [ConversionError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failed_conversion_leaves_the_old_entry_and_no_temporary_folder(tmp_path, failure):
    _publish(tmp_path, "net", "old")
    with pytest.raises(type(failure)):
        _publish(tmp_path, "net", "half", failure)
    assert (tmp_path / "net" / "1" / "model.onnx").read_text() == "old"
    assert _hidden(tmp_path) == []


def test_a_tracked_config_is_there_before_the_first_conversion(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.pbtxt").write_text("tracked")
    with publish.claim(tmp_path, "net"), publish.staged(tmp_path, "net") as staging:
        (staging / "config.pbtxt").write_text("generated")
    assert (tmp_path / "net" / "config.pbtxt").read_text() == "generated"


def test_files_that_others_added_to_an_entry_survive_and_ours_do_not(tmp_path):
    _publish(tmp_path, "net", "old")
    (tmp_path / "net" / "labels.txt").write_text("cat")
    (tmp_path / "net" / "2").mkdir()
    (tmp_path / "net" / "2" / "model.onnx").write_text("another version")
    (tmp_path / "net" / "MANIFEST.json").write_text("of the old model")
    (tmp_path / "net" / "1" / "left.over").write_text("of the old model")
    _publish(tmp_path, "net", "new")
    found = {str(path.relative_to(tmp_path / "net")) for path in (tmp_path / "net").rglob("*")}
    assert found == {"1", "1/model.onnx", "2", "2/model.onnx", "labels.txt"}


def test_two_steps_do_what_one_exchange_does(tmp_path):
    for name in ("net", "staging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    publish.swap_in_two_steps(tmp_path / "staging", tmp_path / "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert (tmp_path / "net" / "who").read_text() == "staging"


def test_a_swap_that_was_killed_between_its_two_steps_is_undone(tmp_path):
    (tmp_path / ".old-net").mkdir()
    (tmp_path / ".old-net" / "who").write_text("old")
    with publish.claim(tmp_path, "net"):
        assert (tmp_path / "net" / "who").read_text() == "old"
    assert _hidden(tmp_path) == []


_BUILDER = """
    import sys, time
    from pathlib import Path
    from converters.conversion import publish
    repository, entry = Path(sys.argv[1]), sys.argv[2]
    with publish.claim(repository, entry), publish.staged(repository, entry) as staging:
        (staging / "1" / "model.onnx").write_text("half")
        print("building", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def builder(tmp_path):
    """Another process in the middle of a conversion of `net`."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_BUILDER), str(tmp_path), "net"],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_conversion_leaves_the_old_entry_and_the_next_one_cleans_up(tmp_path, builder):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.pbtxt").write_text("old")
    builder.kill()
    builder.wait()
    assert (tmp_path / "net" / "config.pbtxt").read_text() == "old"
    assert any(name.startswith(".tmp-net-") for name in _hidden(tmp_path))
    _publish(tmp_path, "other", "new")
    assert [name for name in _hidden(tmp_path) if name.startswith(".tmp-")] == []
    _publish(tmp_path, "net", "new")
    assert _hidden(tmp_path) == []


def test_what_a_living_process_builds_is_left_alone(tmp_path, builder):
    _publish(tmp_path, "other", "new")
    _publish(tmp_path, "net-other", "new")
    (building,) = tmp_path.glob(".tmp-net-*")
    assert (building / "1" / "model.onnx").read_text() == "half"


def test_a_repository_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConversionError, match=r"cannot write the model repository .*/file/repository: Not a dir"
    ):
        _publish(tmp_path / "file" / "repository", "net", "new")

"""Version and commit of a checkout, with real git."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.machine.host.checkout import Tool, tool


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\nversion = "1.2.3"\n')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_checkout_tells_its_commit_and_whether_files_are_as_in_it(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "results").mkdir()
    (checkout / "results" / "new").touch()  # what git does not know changes nothing
    assert tool(checkout) == Tool("1.2.3", commit, is_dirty=False)
    (checkout / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n')
    assert tool(checkout) == Tool("1.2.4", commit, is_dirty=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_somebody_elses_checkout_tells_its_commit_too(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout, "status")
    assert tool(checkout) == Tool("1.2.3", commit, is_dirty=False)


def test_a_copy_inside_another_repository_has_no_commit_of_its_own(checkout: Path) -> None:
    (checkout / "vendored").mkdir()
    (checkout / "vendored" / "pyproject.toml").write_text("no TOML")
    assert tool(checkout / "vendored") == Tool()


def test_inside_a_hook_the_commit_is_not_that_of_whoever_runs_it(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("elsewhere")))
    assert tool(checkout).version == "1.2.3"
    assert tool(checkout).commit is not None


def test_without_git_the_version_is_known_all_the_same(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert tool(checkout) == Tool("1.2.3")

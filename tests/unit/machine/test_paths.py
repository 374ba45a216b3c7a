"""Where things are made: in the checkout, in a folder that was named, or in one of the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.machine import paths
from harness.machine.paths import home_of


def test_it_is_the_checkout_where_that_can_be_written(tmp_path: Path) -> None:
    assert home_of(tmp_path, {"XDG_STATE_HOME": "/x"}) == tmp_path


def test_an_installed_package_keeps_nothing_beside_itself(tmp_path: Path) -> None:
    found = home_of(tmp_path / "lib" / "site-packages", {"XDG_STATE_HOME": "/x"})
    assert found == Path("/x/mlperf-triton-vision")


def test_a_folder_that_is_named_counts_first(tmp_path: Path) -> None:
    assert home_of(tmp_path, {"MLPERF_TRITON_HOME": "/srv/triton"}) == Path("/srv/triton")
    assert home_of(tmp_path, {"MLPERF_TRITON_HOME": "~/triton"}) == Path.home() / "triton"
    assert home_of(tmp_path, {"MLPERF_TRITON_HOME": "some/where"}) == Path("some/where").absolute()


@pytest.mark.parametrize(
    ("state_home", "expected"),
    [("/x/state", "/x/state"), ("", "~/.local/state"), ("relative", "~/.local/state")],
)
def test_where_the_checkout_cannot_be_written_it_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_home: str, expected: str
) -> None:
    # Root, whom this test may be, can write everything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = home_of(tmp_path, {"XDG_STATE_HOME": state_home})
    assert found == Path(expected).expanduser() / "mlperf-triton-vision"


def test_a_checkout_is_written_where_only_its_own_folders_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose root file system is read-only but for what is mounted."""
    for name in (".state", "results", "model_repository"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "access", lambda folder, _mode: Path(folder) != tmp_path)
    assert home_of(tmp_path, {}) == tmp_path
    (tmp_path / "results").rmdir()
    assert home_of(tmp_path, {"XDG_STATE_HOME": "/x"}) == Path("/x/mlperf-triton-vision")


def test_all_that_is_made_is_in_the_folder_that_was_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from harness.machine import paths; paths.make_home(); print(paths.RESULTS_DIR)",
        ],
        cwd=paths.PROJECT_ROOT,
        env={**os.environ, "MLPERF_TRITON_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"{tmp_path}/home/results\n", "")
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [".state", "model_repository"]


def test_where_nothing_can_be_written_that_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE_DIR", Path("/proc/1/.state"))
    with pytest.raises(
        ConfigError, match=r"^cannot write /proc/1/\.state \(.*\): set MLPERF_TRITON_HOME to a"
    ):
        paths.make_home()


def test_another_place_than_the_checkout_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLPERF_TRITON_HOME", raising=False)
    monkeypatch.setattr(paths, "HOME_DIR", tmp_path)
    monkeypatch.setattr(paths, "STATE_DIR", tmp_path / ".state")
    monkeypatch.setattr(paths, "MODEL_REPOSITORY", tmp_path / "models")
    paths.make_home()
    assert caplog.messages == [
        f"{paths.PROJECT_ROOT} cannot be written: models, state and results are in {tmp_path} "
        "($MLPERF_TRITON_HOME names another folder)"
    ]

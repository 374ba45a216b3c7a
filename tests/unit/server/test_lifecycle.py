"""The state file of a server: only one of our own is acted on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine.paths import PROJECT_ROOT
from harness.server import lifecycle
from harness.server.__main__ import main

STATE = {"repository": "/models", "host": "127.0.0.1", "ports": [8000, 8001, 8002]}
PROCESSES = {"pid": 0, "started": None, "supervisor": 0, "supervisor_started": None}
PREFIX = {"shm_prefix": "triton_python_backend_1234_"}


@pytest.mark.parametrize(
    "state",
    [
        {},
        [],
        3,
        "local",
        STATE,
        {**STATE, **PROCESSES},
        # Of every process and every segment, which would be killed and removed.
        {**STATE, **PROCESSES, "shm_prefix": ""},
        {**STATE, **PREFIX},
    ],
)
def test_what_another_version_or_nobody_has_written_is_no_server(tmp_path: Path, state: object) -> None:
    file = tmp_path / "server.json"
    file.write_text(json.dumps(state))
    assert lifecycle.running(tmp_path) is None
    assert not lifecycle.stop(None, tmp_path)
    assert main(["status"], tmp_path) == 3
    assert file.exists()


def test_what_a_dead_server_of_ours_has_left_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.write_text(json.dumps({**STATE, **PROCESSES, **PREFIX}))
    assert lifecycle.running(tmp_path) is None
    assert not lifecycle.stop(None, tmp_path)
    assert not file.exists()


def test_to_follow_the_log_ends_on_ctrl_c_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("a line\n")
    code = (
        "import sys; from pathlib import Path; from harness.server.__main__ import main;"
        "sys.exit(main(['logs', '--follow'], Path(sys.argv[1])))"
    )
    following = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "a line\n"
    os.killpg(following.pid, signal.SIGINT)  # as a terminal does
    assert following.communicate(timeout=120) == ("", "")
    assert following.returncode == 130

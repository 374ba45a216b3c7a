"""The embedded server's life: whatever ends it, nothing of it stays."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tritonclient.grpc

from harness.errors import ServerError
from harness.machine.paths import PROJECT_ROOT
from harness.models.platforms import Platform
from harness.server import lifecycle
from harness.server.flags import KEY_HEADER
from tests import small_models


def write_entry(repository: Path, name: str = "small") -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    small_models.write(Platform.ONNXRUNTIME, version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(small_models.config_text(Platform.ONNXRUNTIME))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder, with a space in its name, for a repository with one small model, and for server states."""
    folder = tmp_path / "a place"
    write_entry(folder / "models")
    yield folder
    for state in folder.glob("state*"):
        lifecycle.stop(None, state)


def load(info: lifecycle.ServerInfo) -> None:
    with tritonclient.grpc.InferenceServerClient(info.grpc_url) as client:
        key = {KEY_HEADER: info.key_file.read_text()} if info.key_file else None
        client.load_model("small", headers=key)
        assert client.is_model_ready("small")


def traces(state: dict[str, Any]) -> list[str]:
    """What is left of a server: its processes and its shared memory."""
    found = [f"/dev/shm/{path.name}" for path in Path("/dev/shm").glob(f"{state['shm_prefix']}*")]
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if state["shm_prefix"] in command:
            found.append(f"{process.pid}: {command[:80]}")
    return found


def read_state(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "server.json").read_text()))


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def run_cli(state: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """The command line with a state folder of the test's own. Pipes: it must not keep them open."""
    code = "import sys; from pathlib import Path; from harness.server.__main__ import main;"
    code += " sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"
    return subprocess.run(
        [sys.executable, "-c", code, str(state), *arguments],
        cwd=PROJECT_ROOT,
        # A proxy must not come between us and this machine's own ports.
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


PARENT = """
import sys, time
from pathlib import Path
import tritonclient.grpc
from harness.server import lifecycle
from harness.server.flags import KEY_HEADER
folder = Path(sys.argv[1])
info = lifecycle.start(folder / "models", state_dir=folder / "state", die_with_parent=True)
tritonclient.grpc.InferenceServerClient(info.grpc_url).load_model("small")
print("loaded", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_server_no_stub_and_no_shared_memory(
    place: Path, signal_number: signal.Signals
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(place)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == "loaded\n"
        state = read_state(place / "state")
        assert len(traces(state)) == 5  # supervisor, tritonserver, stub, one region, its lock
        parent.send_signal(signal_number)
    assert wait_until(lambda: not traces(state), 30), traces(state)
    assert not (place / "state" / "server.json").exists()


def test_a_crashed_server_is_cleared_up_and_no_longer_running(place: Path) -> None:
    info = lifecycle.start(place / "models", state_dir=place / "state")
    load(info)
    state = read_state(place / "state")
    os.kill(info.pid, signal.SIGKILL)
    assert wait_until(lambda: lifecycle.running(place / "state") is None, 30)
    assert wait_until(lambda: not traces(state), 30), traces(state)
    assert "tritonserver has ended, killed by SIGKILL: " in info.log.read_text()


def test_a_server_that_was_told_to_end_says_nothing_of_how(place: Path) -> None:
    info = lifecycle.start(place / "models", state_dir=place / "state")
    assert lifecycle.stop(info, place / "state")
    assert "tritonserver has ended" not in info.log.read_text()


def test_a_killed_supervisor_takes_the_server_with_it_and_the_next_start_clears_up(place: Path) -> None:
    load(lifecycle.start(place / "models", state_dir=place / "state"))
    state = read_state(place / "state")
    leftover = Path("/dev/shm") / f"{state['shm_prefix']}leftover"
    leftover.touch()
    os.kill(state["supervisor"], signal.SIGKILL)
    assert wait_until(lambda: lifecycle.running(place / "state") is None, 30)
    load(lifecycle.start(place / "models", state_dir=place / "state"))
    assert not leftover.exists()
    assert wait_until(lambda: not traces(state), 30), traces(state)


def test_what_a_server_killed_as_a_whole_has_left_is_removed_by_the_next_one_wherever_that_is_kept(
    place: Path,
) -> None:
    """As at the end of a container or a control group, after which nobody knows the state folder."""
    info = lifecycle.start(place / "models", state_dir=place / "state 1")
    load(info)
    state = read_state(place / "state 1")
    server = psutil.Process(info.pid)
    everything = [psutil.Process(state["supervisor"]), server, *server.children(recursive=True)]
    for process in everything:
        process.suspend()
    for process in everything:
        process.kill()
    psutil.wait_procs(everything[1:], timeout=30)
    (place / "state 1" / "server.json").unlink()
    lifecycle.start(place / "models", state_dir=place / "state 2")
    assert traces(state) == []


def test_a_server_that_ignores_the_request_to_end_is_killed(place: Path) -> None:
    info = lifecycle.start(place / "models", state_dir=place / "state")
    load(info)
    state = read_state(place / "state")
    os.kill(info.pid, signal.SIGSTOP)
    assert lifecycle.stop(info, place / "state")
    assert traces(state) == []


def test_stop_is_complete_with_a_model_loaded(place: Path) -> None:
    info = lifecycle.start(place / "models", state_dir=place / "state")
    load(info)
    state = read_state(place / "state")
    assert lifecycle.stop(info, place / "state")
    assert traces(state) == []
    assert not lifecycle.stop(info, place / "state")


def test_two_servers_run_side_by_side_and_only_the_one_asked_is_stopped(place: Path) -> None:
    first = lifecycle.start(place / "models", state_dir=place / "state 1")
    second = lifecycle.start(place / "models", state_dir=place / "state 2")
    assert first.grpc_url != second.grpc_url
    load(first)
    load(second)
    assert not lifecycle.stop(first, place / "state 2")
    assert lifecycle.stop(first, place / "state 1")
    assert lifecycle.running(place / "state 2") == second
    assert lifecycle.is_ready(second)


def test_a_second_start_in_the_same_state_folder_is_refused_and_says_where_the_first_is(
    place: Path,
) -> None:
    info = lifecycle.start(place / "models", state_dir=place / "state")
    with pytest.raises(lifecycle.AlreadyRunning, match=info.grpc_url) as refusal:
        lifecycle.start(place / "models", state_dir=place / "state")
    assert refusal.value.info == info


def test_another_process_with_the_servers_old_pid_is_not_taken_for_it(place: Path) -> None:
    lifecycle.start(place / "models", state_dir=place / "state")
    state = read_state(place / "state")
    lifecycle.stop(None, place / "state")
    stranger = {**state, "pid": os.getpid(), "supervisor": os.getppid()}
    (place / "state" / "server.json").write_text(json.dumps(stranger))
    assert lifecycle.running(place / "state") is None
    assert not lifecycle.stop(None, place / "state")


def test_the_command_line_starts_a_server_that_outlives_it(place: Path) -> None:
    state = place / "state"
    repository = ("--model-repository", str(place / "models"))
    up = run_cli(state, "up", *repository)
    assert (up.returncode, up.stderr) == (0, "")
    info = lifecycle.running(state)
    assert info is not None
    assert info.grpc_url in up.stdout
    again = run_cli(state, "up", *repository)
    assert again.returncode == 0
    assert "already running" in again.stdout
    load(info)
    status = run_cli(state, "status")
    assert status.returncode == 0
    assert "small: READY" in status.stdout
    # As after a run.
    with tritonclient.grpc.InferenceServerClient(info.grpc_url) as client:
        client.unload_model("small", headers={KEY_HEADER: info.key_file.read_text()})
    status = run_cli(state, "status")
    assert (status.returncode, status.stdout.splitlines()[0]) == (0, f"Triton is ready (pid {info.pid})")
    assert "UNLOADING" not in status.stdout
    assert "successfully loaded 'small'" in run_cli(state, "logs").stdout
    down = run_cli(state, "down")
    assert (down.returncode, down.stdout) == (0, "Triton is stopped\n")
    assert run_cli(state, "status").returncode == 3
    assert run_cli(state, "down").stdout == "Triton was not running\n"


def test_a_taken_port_that_was_asked_for_is_one_line_and_exit_3(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = run_cli(place / "state", "up", "--grpc-port", str(port))
    assert up.returncode == 3
    assert up.stderr == f"error: port {port} on 127.0.0.1 is taken; choose another with --grpc-port\n"


def test_a_server_that_dies_at_start_is_reported_with_what_it_printed_last(place: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20));"
    code += "from pathlib import Path; import sys; from harness.server import lifecycle;"
    code += "lifecycle.start(Path(sys.argv[1]), state_dir=Path(sys.argv[2]))"
    run = subprocess.run(
        [sys.executable, "-c", code, str(place / "models"), str(place / "state")],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    message = run.stderr[run.stderr.index("ServerError: ") :]
    assert "tritonserver died at start" in message
    assert "Signal (6) received." in message
    assert not (place / "state" / "server.json").exists()


def test_a_host_that_is_not_ours_is_a_server_error(place: Path) -> None:
    with pytest.raises(ServerError, match=r"cannot listen on 192\.0\.2\.1: "):  # RFC 5737, for documentation
        lifecycle.start(place / "models", state_dir=place / "state", host="192.0.2.1")


def test_the_server_listens_on_the_given_interface_only(place: Path) -> None:
    info = lifecycle.start(place / "models", state_dir=place / "state")
    sockets = [c for c in psutil.Process(info.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert len(sockets) >= 3
    assert {socket.laddr.ip.removeprefix("::ffff:") for socket in sockets} == {"127.0.0.1"}


# Stands in for Docker's client alone: what `compose up` starts is a real Triton, with the settings that
# compose.yaml takes from the environment.

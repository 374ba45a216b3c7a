"""Start, find and stop a Triton server.

The server is the real tritonserver of the nvidia-pytriton wheel (see `launch`) under a `supervisor`. A state
folder holds one server: its state file, log, backend directory, and a link to the model repository.
"""

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, ServerError
from harness.machine import file_lock, kernel, paths, progress
from harness.machine.paths import SERVER_STATE_DIR
from harness.server import launch, regions, supervisor
from harness.server.flags import KEY_HEADER, write_key
from harness.server.launch import Ports

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 60
_POLL_S = 0.02
_PORT_ATTEMPTS = 3

_LOG_TAIL = 10
_NOISE = re.compile(r"[|+]|\s*\d+# ")
"""Triton's tables and stack frames."""

_STATE_FILE = "server.json"
_KEY_FILE = "control.key"
LOG_FILE = "server.log"

_STATE_KEYS = {
    *("repository", "host", "ports"),
    *("pid", "started", "supervisor", "supervisor_started", "shm_prefix"),
}

# Without the proxy of $http_proxy, which knows nothing of this machine's ports.
http_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# Reaped when they end; without this they would stay zombies as long as this process lives.
_supervisors: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ServerInfo:
    """A running server."""

    pid: int
    """Of tritonserver."""
    grpc_url: str
    """host:port, as tritonclient takes it."""
    http_url: str
    metrics_url: str
    log: Path
    """What tritonserver and the backends print."""
    repository: Path
    shm_prefix: str
    """Of the names of its stubs' regions in /dev/shm."""
    key_file: Path | None = None
    """Has the key of the server's control, for the header `flags.KEY_HEADER`; None: open to all."""

    @property
    def headers(self) -> tuple[str, ...]:
        """What control of it needs, as --header takes it."""
        return (f"{KEY_HEADER}: @{self.key_file}",) if self.key_file else ()


class AlreadyRunning(ServerError):
    """The state folder's server runs; `info` says where."""

    def __init__(self, info: ServerInfo) -> None:
        super().__init__(f"a Triton server is already running at {info.grpc_url}; stop it first")
        self.info = info


class _PortLost(ServerError):
    """A port that was free has been taken by another process."""


def start(
    repository: Path,
    *,
    ports: Ports | None = None,
    die_with_parent: bool = False,
    state_dir: Path = SERVER_STATE_DIR,
    host: str = "127.0.0.1",
    auto_complete: bool = False,
    has_key: bool = False,
) -> ServerInfo:
    """Start the embedded server and wait until it is ready; no model is loaded yet.

    Args:
        repository: Folder of model entries; models are loaded from it by the model control API.
        ports: HTTP, gRPC, metrics. 0, or None for all: the default if it is free, else any free port.
        die_with_parent: End the server when the calling thread (so call from the main thread) ends, however
            it ends. Otherwise the server outlives the caller.
        state_dir: Where this server keeps its files; one server per folder.
        host: Interface to listen on.
        auto_complete: Let backends fill in what a config.pbtxt omits; every load then takes 1.3 s longer.
        has_key: Let nobody control it who does not have the key in `ServerInfo.key_file`. Otherwise whoever
            reaches it can, other users of this machine included: a model may be a program.

    Raises:
        AlreadyRunning: this state folder has a live server.
        ConfigError: there is no such repository.
        ServerError: a port is taken, something is not installed, or the server died (its last log lines).
    """
    repository, state_dir = repository.absolute(), state_dir.absolute()
    if not repository.is_dir():
        raise ConfigError(f"model repository {repository} is not a folder")
    state_dir.mkdir(parents=True, exist_ok=True)
    with file_lock.hold(state_dir / "start.lock"):
        if info := running(state_dir):
            raise AlreadyRunning(info)
        stop(None, state_dir)  # what a killed predecessor left
        if swept := regions.sweep():
            logger.info("removed the shared memory of %d server(s) that were killed", len(swept))
        parent = os.getpid() if die_with_parent else 0
        for _ in range(_PORT_ATTEMPTS - 1):
            # Between choosing a free port and binding it, another process may take it.
            with contextlib.suppress(_PortLost):
                chosen = launch.choose_ports(host, ports)
                return _launch(repository, state_dir, host, chosen, auto_complete, has_key, parent)
        chosen = launch.choose_ports(host, ports)
        return _launch(repository, state_dir, host, chosen, auto_complete, has_key, parent)


@contextlib.contextmanager
def for_a_while(repository: Path, state_dir: Path) -> Iterator[ServerInfo]:
    """A server until the block ends; its folder goes with it, but for the log of one that has failed.

    Raises:
        as `start`.
    """
    try:
        info = start(repository, die_with_parent=True, state_dir=state_dir, has_key=True)
    except (KeyboardInterrupt, OSError):
        # A server that fails leaves its log there, which the error names; a full disk keeps nothing.
        shutil.rmtree(state_dir, ignore_errors=True)
        raise
    try:
        yield info
    finally:
        if stop(info, state_dir):
            shutil.rmtree(state_dir, ignore_errors=True)
        else:
            logger.error("the Triton server died during the run; %s", log_tail(state_dir))


def _launch(
    repository: Path,
    state_dir: Path,
    host: str,
    ports: Ports,
    auto_complete: bool,
    has_key: bool,
    parent: int,
) -> ServerInfo:
    plan, env = _prepare(repository, state_dir, host, ports, auto_complete)
    if has_key:
        # Nothing else has it but the server's memory.
        write_key(state_dir / _KEY_FILE)
        plan["state"]["key_file"] = str(state_dir / _KEY_FILE)
    process = _spawn_supervisor({**plan, "die_with": parent}, env, state_dir / LOG_FILE)
    try:
        with progress.waiting("starting Triton"):
            return _wait_until_ready(process, state_dir, ports)
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2 * supervisor.GRACE_S)
        raise


def _prepare(
    repository: Path, state_dir: Path, host: str, ports: Ports, auto_complete: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill the state folder; returns the supervisor's plan and the environment variables."""
    wheel = launch.find_wheel()
    env = launch.environment(wheel)
    launch.check_python(wheel, env)
    launch.check_shared_memory()
    launch.assemble_backends(state_dir / launch.BACKENDS, wheel)
    link = state_dir / launch.REPOSITORY
    link.unlink(missing_ok=True)
    link.symlink_to(repository, target_is_directory=True)
    shm_prefix = regions.new_prefix()
    plan = {
        "command": launch.command(wheel, host, ports, shm_prefix, auto_complete=auto_complete),
        "folder": str(state_dir),
        "state_file": str(state_dir / _STATE_FILE),
        "state": {
            "repository": str(repository),
            "host": host,
            "ports": ports,
            "shm_prefix": shm_prefix,
            "key_file": "",
        },
    }
    return plan, env


def _spawn_supervisor(plan: dict[str, Any], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        # A session of its own and none of our streams: the server survives the shell that started it, gets
        # no Ctrl-C meant for us, and keeps no pipe open that someone reads to its end.
        process = subprocess.Popen(
            # As -I, but for the working folder, which it is found in.
            [sys.executable, "-E", "-s", "-m", supervisor.__name__, json.dumps(plan)],
            cwd=paths.PROJECT_ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _supervisors[process.pid] = process
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], state_dir: Path, ports: Ports) -> ServerInfo:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = log_tail(state_dir)
            raise (_PortLost if "already in use" in tail else ServerError)(
                f"tritonserver died at start; {tail}"
            )
        info = running(state_dir)
        # Its own sockets first: what answers on the port might be somebody else's server.
        if info and kernel.listening_ports(info.pid) >= set(ports) and is_ready(info):
            logger.info("Triton is ready at %s (pid %d)", info.grpc_url, info.pid)
            return info
        time.sleep(_POLL_S)
    raise ServerError(f"tritonserver was not ready after {READY_TIMEOUT_S} s; {log_tail(state_dir)}")


def log_tail(state_dir: Path) -> str:
    """The last telling lines of a server's log, and where that is."""
    log = state_dir / LOG_FILE
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line for line in lines if line.strip() and not _NOISE.match(line)]
    return "\n  ".join([f"the end of {log}:", *telling[-_LOG_TAIL:]])


def is_ready(info: ServerInfo) -> bool:
    """Whether the server says that it is ready for requests."""
    try:
        with http_opener.open(f"{info.http_url}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # nothing there, or something that is no web server
        return False


def running(state_dir: Path = SERVER_STATE_DIR) -> ServerInfo | None:
    """The state folder's server if it is alive, started by us and not another process with its old pid."""
    state = _read_state(state_dir)
    if state is None or not _is_alive(state, "pid", "started"):
        return None
    host = "127.0.0.1" if state["host"] == "0.0.0.0" else state["host"]
    http, grpc, metrics = state["ports"]
    return ServerInfo(
        pid=state["pid"],
        grpc_url=f"{host}:{grpc}",
        http_url=f"http://{host}:{http}",
        metrics_url=f"http://{host}:{metrics}/metrics",
        log=state_dir.absolute() / LOG_FILE,
        repository=Path(state["repository"]),
        shm_prefix=state["shm_prefix"],
        key_file=Path(state["key_file"]) if state.get("key_file") else None,
    )


def temporary_state_dir() -> Path:
    """Of the server that this process may have started for as long as it needs it."""
    return paths.STATE_DIR / f"server-{os.getpid()}"


def at(grpc_url: str) -> ServerInfo | None:
    """The server at this address, if it is one of ours: the one that runs here, or this process's."""
    found = (running(), running(temporary_state_dir()))
    return next((info for info in found if info and info.grpc_url == grpc_url), None)


def _read_state(state_dir: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((state_dir / _STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return state if _is_state(state) else None


def _is_state(state: Any) -> bool:
    """Whether a document is a state that this version writes; of another one we leave everything alone."""
    # What carries the prefix is killed and removed.
    return (
        isinstance(state, dict)
        and _STATE_KEYS.issubset(state)
        and str(state["shm_prefix"]).startswith(regions.START)
    )


def _is_alive(state: dict[str, Any], pid: str, started: str) -> bool:
    return state[started] is not None and kernel.start_time(state[pid]) == int(state[started])


def stop(info: ServerInfo | None = None, state_dir: Path = SERVER_STATE_DIR) -> bool:
    """Stop the state folder's embedded server and clear up behind it; whether there was one.

    Args:
        info: Stop it only if it is this one; None: whichever it is.
        state_dir: As given to `start`.
    """
    state = _read_state(state_dir)
    if state is None or (info is not None and info.pid != state["pid"]):
        return False
    was_alive = _is_alive(state, "pid", "started")
    _end(state, signal.SIGTERM, 2 * supervisor.GRACE_S)
    # Only if the supervisor was stuck or killed is there anything left to do.
    _end(state, signal.SIGKILL, supervisor.GRACE_S)
    regions.clear(state["shm_prefix"])
    (state_dir / _STATE_FILE).unlink(missing_ok=True)
    (state_dir / _KEY_FILE).unlink(missing_ok=True)
    if process := _supervisors.pop(state["supervisor"], None):
        process.wait()
    return was_alive


def _end(state: dict[str, Any], signal_number: int, timeout_s: float) -> None:
    """Signal the supervisor and wait until both it and the server are gone."""
    keys = (("supervisor", "supervisor_started"), ("pid", "started"))
    deadline = time.monotonic() + timeout_s
    for pid, started in keys:
        if _is_alive(state, pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state[pid], signal_number)
    while any(_is_alive(state, *key) for key in keys) and time.monotonic() < deadline:
        time.sleep(_POLL_S)

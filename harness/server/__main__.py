"""Start, find and stop the Triton server: `python -m harness.server up|down|status|logs`."""

import argparse
import http.client
import json
import logging
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import EXIT_INTERRUPTED, EXIT_SERVER, ConfigError, ServerError
from harness.machine import command, paths
from harness.machine.command import OneLineParser
from harness.machine.paths import MODEL_REPOSITORY, SERVER_STATE_DIR
from harness.server import launch
from harness.server.flags import KEY_HEADER
from harness.server.lifecycle import (
    LOG_FILE,
    AlreadyRunning,
    ServerInfo,
    http_opener,
    is_ready,
    running,
    start,
    stop,
)


def main(arguments: Sequence[str] | None = None, state_dir: Path = SERVER_STATE_DIR) -> int:
    """Carry out one command line; returns the exit code."""

    def body() -> int:
        options = _parser().parse_args(arguments)
        try:
            return _COMMANDS[options.command](options, state_dir)
        except ValueError as error:
            # What is in the state folder is damaged.
            raise ConfigError(str(error)) from error

    return command.run(body, level=logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m harness.server", description="Start and stop the Triton server.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|status|logs")

    def add(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, prog=f"./run.sh tritonserver-{name}", help=what, description=f"{what.capitalize()}."
        )

    up = add("up", "start the server and leave it running")
    up.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    for option, default in zip(launch.PORT_OPTIONS, launch.DEFAULT_PORTS, strict=True):
        up.add_argument(
            option,
            type=_port,
            default=0,
            metavar="PORT",
            help=f"default: {default} if free, else any free port",
        )
    up.add_argument(
        "--model-repository",
        type=Path,
        default=MODEL_REPOSITORY,
        metavar="DIR",
        help="what it may serve (default: model_repository/; runs use the server only with that one)",
    )
    up.add_argument(
        "--insecure",
        action="store_true",
        help="let whoever reaches it load models, which may be programs, and change its settings; without "
        "it that takes a key, and inference, health, metadata and statistics alone are for everybody: "
        "Triton has no other authentication",
    )
    add("down", "stop the server")
    add("status", "say where the server is and what it serves, or exit with 3")
    logs = add("logs", "show what the server printed")
    logs.add_argument("--lines", type=int, default=100, help="how many of the last (default: %(default)s)")
    logs.add_argument("--follow", action="store_true", help="go on showing what is added")
    return parser


_UNLOADING_S = 10.0
"""Longest that a model may take for it before `status` says so."""
_REACHABLE = """
Whoever reaches {host} can run inference with what is loaded, and read all that travels, the key as well:
Triton has no authentication but the key, and this server no encryption. Have a firewall in front of it."""


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return int(text)


def _up(options: argparse.Namespace, state_dir: Path) -> int:
    paths.make_home()
    ports = (options.http_port, options.grpc_port, options.metrics_port)
    try:
        if info := running(state_dir):
            raise AlreadyRunning(info)
        info = start(
            options.model_repository,
            ports=ports,
            state_dir=state_dir,
            host=options.host,
            has_key=not options.insecure,
        )
        _show("Triton is ready", info)
        if options.host not in ("localhost", "::1") and not options.host.startswith("127."):
            print(_REACHABLE.format(host=options.host))  # noqa: T201 - the result
    except AlreadyRunning as error:
        _show("Triton is already running", error.info)
    return 0


def _down(_options: argparse.Namespace, state_dir: Path) -> int:
    was_running = stop(None, state_dir)
    print("Triton is stopped" if was_running else "Triton was not running")  # noqa: T201 - the result
    return 0


def _status(_options: argparse.Namespace, state_dir: Path) -> int:
    info = running(state_dir)
    if info is None:
        print("Triton is not running; start it with ./run.sh tritonserver-up")  # noqa: T201 - the result
        return EXIT_SERVER
    models = _settled_models(info)
    _show("Triton is ready" if is_ready(info) else "Triton is running, but not ready", info)
    for model in models:
        print(f"  {model}")  # noqa: T201 - the result
    return 0


def _settled_models(info: ServerInfo) -> list[str]:
    """Models and their states, once what a run had loaded is unloaded: a server at that is not ready."""
    until_s = time.monotonic() + _UNLOADING_S
    models = _models(info)
    while any(model.endswith(": UNLOADING") for model in models) and time.monotonic() < until_s:
        time.sleep(_UNLOADING_S / 100)
        models = _models(info)
    return models


def _models(info: ServerInfo) -> list[str]:
    request = urllib.request.Request(f"{info.http_url}/v2/repository/index", data=b"{}", method="POST")
    try:
        if info.key_file:
            request.add_header(KEY_HEADER, info.key_file.read_text(encoding="ascii"))
        with http_opener.open(request, timeout=5) as answer:
            index = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return []
    return [f"{entry['name']}: {_state(entry)}" for entry in index if entry.get("state")]


def _state(entry: Mapping[str, str]) -> str:
    """In Triton's words, but for what it calls unavailable since nobody wants it loaded."""
    reason = entry.get("reason", "")
    if reason == "unloaded":
        return "not loaded"
    return f"{entry['state']}{': ' if reason else ''}{reason}"


def _logs(options: argparse.Namespace, state_dir: Path) -> int:
    log = state_dir / LOG_FILE
    if not log.exists():
        raise ServerError(f"there is no log yet ({log}); start the server first")
    tail = ["tail", f"--lines={options.lines}", *(["--follow"] if options.follow else []), str(log)]
    try:
        return subprocess.run(tail, check=False).returncode
    except KeyboardInterrupt:  # how --follow is left
        return EXIT_INTERRUPTED


def _show(title: str, info: ServerInfo) -> None:
    print(  # noqa: T201 - the result
        f"{title} (pid {info.pid})\n  gRPC        {info.grpc_url}\n  HTTP        {info.http_url}\n"
        f"  metrics     {info.metrics_url}\n  repository  {info.repository}\n  log         {info.log}\n"
        f"  control     {_control(info)}"
    )


def _control(info: ServerInfo) -> str:
    if not info.key_file:
        return "open to whoever reaches it: loading models, which may be programs, and all settings"
    return (
        f"for who sends the header {KEY_HEADER} with the key in {info.key_file}\n"
        f"              a run finds it by itself; another program of yours: --header '{info.headers[0]}'"
    )


_COMMANDS = {"up": _up, "down": _down, "status": _status, "logs": _logs}


if __name__ == "__main__":
    sys.exit(main())

"""The servers of a run: those that were named, the one that runs here, or one for as long as it is needed."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.machine import paths
from harness.run.config.checks import check_shares
from harness.run.config.run_config import RunConfig
from harness.server import lifecycle
from harness.triton.address import Address, parse_headers

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def servers(config: RunConfig) -> Iterator[tuple[tuple[Address, ...], bool]]:
    """The servers to measure, and whether they are ours: given, running, or started for as long as needed.

    Raises:
        ConfigError: what was given has no address, is one server twice, or cannot be shared by the processes.
        ServerError: none can be started.
    """
    running = lifecycle.running()
    urls = config.server.urls
    if running and not urls:
        if running.repository == paths.MODEL_REPOSITORY:
            urls = (running.grpc_url,)
        else:
            logger.info("the running server serves %s: starting another one", running.repository)
    if urls:
        found = every_server([config.server.address(url) for url in urls])
        check_shares(config.server.client_processes, len(found))
        logger.info("using the server%s at %s", "s" * (len(found) > 1), ", ".join(one.url for one in found))
        yield tuple(map(_with_key, found)), False
        return
    for leftover in paths.STATE_DIR.glob("server-*"):
        # Of a run that was killed; its server has ended with it.
        owner = leftover.name.removeprefix("server-")
        if Path(f"/proc/{owner}").exists():
            continue
        lifecycle.stop(state_dir=leftover)
        shutil.rmtree(leftover, ignore_errors=True)
    with lifecycle.for_a_while(paths.MODEL_REPOSITORY, lifecycle.temporary_state_dir()) as info:
        yield (_with_key(config.server.address(info.grpc_url)),), True


def has_our_files(server: Address) -> bool:
    """Whether it serves the entries that are converted here."""
    own = lifecycle.at(server.url)
    return own is not None and own.repository == paths.MODEL_REPOSITORY


def every_server(named: Sequence[Address]) -> tuple[Address, ...]:
    """What was named, with all servers of a name in its place; names are looked up here and nowhere later.

    Raises:
        ConfigError: a name has no address, or one server is named twice.
    """
    found: list[Address] = []
    taken: dict[tuple[str, str], str] = {}
    for server in named:
        host, port = server.host_and_port
        ips = [] if server.path else _ips(server)
        # Over TLS the name goes along: by it, a gateway with one address chooses among the servers behind it.
        is_by_name = server.is_encrypted and not server.is_name
        hosts = [host.strip("[]").lower()] if is_by_name else ips
        for place in hosts:
            if other := taken.get((place, port)):
                raise ConfigError(
                    f"--url names one server twice: {other} and {server.url} are both at {place}"
                )
        taken |= {(place, port): server.url for place in hosts}
        found += [server.at(ip) for ip in _one_of_each(ips)] if server.is_name else [server]
    return tuple(found)


def _one_of_each(ips: list[str]) -> list[str]:
    """One address of each server that a name has.

    Where networks have both kinds (a dual-stack Service of Kubernetes), each server has one of each.
    """
    fourth = [ip for ip in ips if ":" not in ip]
    if 2 * len(fourth) != len(ips):
        return ips
    logger.info("its IPv6 addresses are taken for those of the same servers: left out")
    return fourth


def _ips(server: Address) -> list[str]:
    try:
        return server.ips()
    except (OSError, UnicodeError) as error:
        host, _ = server.host_and_port
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--url {server.url}: {host} has no address ({reason}): check its name, and this machine's DNS"
        ) from error


def _with_key(server: Address) -> Address:
    """The same server; with the key of its control, where it is one of ours."""
    own = lifecycle.at(server.url)
    if own is None:
        return server
    # Its ports may be any.
    server = dataclasses.replace(server, metrics=server.metrics or own.metrics_url)
    given = {header.name for header in server.headers}
    key = (header for header in parse_headers(own.headers) if header.name not in given)
    return dataclasses.replace(server, headers=(*server.headers, *key))

"""Somebody else's server, left as it was found: the model with its own settings, or not loaded.

What a run is about to change is written down first, in the state folder, together with the names that its
shared memory has. A run that is killed leaves that file, by which the next one at that server puts right what
is still to be put right there.
"""

import contextlib
import dataclasses
import functools
import ipaddress
import json
import logging
import os
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ServerError
from harness.machine import file_lock, files, paths
from harness.machine.from_json import loads
from harness.models.live_config import has_settings
from harness.triton.address import Address
from harness.triton.client import TritonClient, is_on_this_host
from harness.triton.messages import name_and_version

logger = logging.getLogger(__name__)


@functools.cache
def segment_prefix() -> str:
    """What the names of this process's shared memory begin with, and nobody else's."""
    return f"mlperf-samples-{os.getpid()}-{uuid.uuid4().hex[:8]}-"


@dataclass(frozen=True)
class _Journal:
    """What a run has to put right at one server."""

    entry: str
    segments: str
    """What the names of its shared memory begin with."""
    before: Mapping[str, Any] | None
    """The model's configuration as it was found; None where it was not loaded."""
    sent: str | None = None
    """The configuration that it was loaded with instead, empty for that of its file; None: it was not."""


class Loan:
    """One model on somebody else's server."""

    def __init__(self, client: TritonClient, entry: str, file: Path) -> None:
        """See how the model is found, and write it down in `file`.

        Raises:
            ServerError: the server does not answer.
            ConfigError: the file cannot be written.
        """
        self._client, self._file = client, file
        before = client.model_config(entry) if client.is_model_ready(entry) else None
        self._note(_Journal(entry, segment_prefix(), before))

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The model's configuration as it was found; None where it was not loaded."""
        return self._journal.before

    def changes_to(self, config_json: str | None) -> None:
        """The model is about to be loaded so (None: as its file says).

        Raises:
            ConfigError: that cannot be written down.
        """
        self._note(dataclasses.replace(self._journal, sent=config_json or ""))

    def stays(self) -> None:
        """The server did not let us load it after all."""
        self._note(dataclasses.replace(self._journal, sent=None))

    def give_back(self) -> None:
        """Put the model back, if it was changed; where the server is gone, the next run will see to it."""
        try:
            if self._journal.sent is not None:
                _put_back(self._client, self._journal)
        except ServerError as error:
            logger.warning("%s is not put back as it was found: %s", self._journal.entry, error)
        else:
            self._file.unlink()

    def _note(self, journal: _Journal) -> None:
        files.write(self._file, json.dumps(dataclasses.asdict(journal)))
        self._journal = journal


@contextlib.contextmanager
def borrowed(client: TritonClient, entry: str, place: str = "") -> Iterator[Loan]:
    """Leave a model as it was found; other runs of this machine at that server wait until this one is over.

    Args:
        client: of the server.
        entry: the model's name there.
        place: of `places`, where a run has several servers.

    Raises:
        ServerError: the server does not answer, or does not let us put right what a killed run has left.
        ConfigError: the state folder cannot be written.
    """
    name, _ = name_and_version(entry)
    folder, place = paths.STATE_DIR / "borrowed", place or _place(client.server)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock.hold(folder / f"{place}.lock"):
        for file in folder.glob(f"*@{place}.json"):
            # Of a run that was killed: we hold the lock.
            _repair(client, file)
        journal = folder / f"{urllib.parse.quote(name, safe='')}@{place}.json"
        if journal.exists():
            raise ServerError(
                f"{name} on {client.url} is as a run that was killed has left it, and cannot be put back; "
                f"{journal} has how it was found: remove that to have it measured as it is now"
            )
        loan = Loan(client, name, journal)
        try:
            yield loan
        finally:
            loan.give_back()


def places(servers: Sequence[Address]) -> list[str]:
    """A name for each of a run's servers, for its lock and its journal: no two have the same."""
    found = list(map(_place, servers))
    # Several on this machine may have one port after all, each at an address of its own.
    return [
        _by_address(server, _ip(server)) if found.count(place) > 1 else place
        for server, place in zip(servers, found, strict=True)
    ]


def _place(server: Address) -> str:
    """A name for a server; on this machine it may have several addresses, but only one of its ports."""
    _, port = server.host_and_port
    if port and is_on_this_host(server):
        return f"port-{port}"
    # A published port of a container, or a tunnel's.
    ip = _ip(server)
    return f"loopback-{port}" if ip and ipaddress.ip_address(ip).is_loopback else _by_address(server, ip)


def _by_address(server: Address, ip: str) -> str:
    """However it was spelled; by that where names have no address, or tell servers behind a gateway apart."""
    _, port = server.host_and_port
    return urllib.parse.quote(f"{ip}:{port}" if ip and not server.is_encrypted else server.url, safe="")


def _ip(server: Address) -> str:
    """The first of a server's; empty where there is none, as of a socket on this machine."""
    try:
        return server.ips()[0]
    except (OSError, ValueError):
        return ""


def _repair(client: TritonClient, file: Path) -> None:
    """Put right what a run that was killed has left at the server."""
    try:
        journal = loads(_Journal, file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s): left out", file, error)
        file.unlink()
        return
    # A server that lets no client map memory has none.
    with contextlib.suppress(ServerError):
        for name in client.shared_memory_regions():
            if name.startswith(journal.segments):
                logger.warning("unmapping the samples that a killed run has left in %s", client.url)
                client.unregister_shared_memory(name)
    try:
        _repair_model(client, journal)
    except ServerError as error:
        logger.warning("%s", error)
    else:
        file.unlink()


def _repair_model(client: TritonClient, journal: _Journal) -> None:
    if journal.sent is None or not client.is_model_ready(journal.entry):
        return
    if not journal.sent:
        # Since then anybody may have loaded it by the same file.
        logger.warning("a run that was killed has left %s loaded on %s", journal.entry, client.url)
    elif has_settings(client.model_config(journal.entry), journal.sent):
        logger.warning(
            "a run that was killed has left %s on %s with other settings: put back as it was found",
            *(journal.entry, client.url),
        )
        _put_back(client, journal)


def _put_back(client: TritonClient, journal: _Journal) -> None:
    """Have the model served as it was found, and see that it is.

    Raises:
        ServerError: the server cannot, or does not answer.
    """
    if journal.before is None:
        client.unload(journal.entry)
        return
    # A server that is stopped says nothing to this in seconds, and to a load in minutes.
    client.is_model_ready(journal.entry)
    # Without a configuration, Triton would load it with the one that it was given last.
    client.load(journal.entry, json.dumps(journal.before))
    live = client.model_config(journal.entry)
    keys = sorted(key for key in {*live, *journal.before} if live.get(key) != journal.before.get(key))
    if keys:
        logger.warning(
            "%s on %s was loaded with the settings that it was found with, and yet is not as it was: %s",
            *(journal.entry, client.url, ", ".join(f"{key} is {live.get(key)}" for key in keys)),
        )

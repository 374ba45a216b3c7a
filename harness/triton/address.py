"""How a server is reached: where it is, who speaks gRPC with it, whom to trust, what opens its doors."""

import contextlib
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from harness.errors import ConfigError
from harness.machine import paths
from harness.triton.rpc import Rpc

_ENCRYPTED = "grpcs://"
_UNIX, _DNS, _ENCRYPTED_DNS = "unix:", "dns:///", "grpcs+dns:///"
_NAME = re.compile(r"[a-z0-9_.-]+")
_NOT_OURS_TO_SET = re.compile(r"grpc-.*|.*-bin|te|content-type|host|connection|user-agent")
_VALUE = re.compile(r"[ -~]+")
_HOST = re.compile(r"//(\[[^]]*\]|[^:/]*)")
"""Of a URL."""
_REFERENCE = re.compile(r"((?:\S+ +)?)(\$\w+|@.+)")
_KEPT = "$HARNESS_HEADER_"
_LARGEST_HEADERS = 8192
"""Bytes of all names and values: gRPC servers take no more, unless they are told to."""
_ANSWERS_IN_S = 3.0
"""Of an address, to a connection; the next one of its name is tried then."""


@dataclass(frozen=True)
class Tls:
    """Paths of files in PEM; empty for none."""

    ca: str = ""
    """Authorities to trust instead of this machine's."""
    cert: str = ""
    """Of the client, with its chain, and the key that belongs to it."""
    key: str = ""

    @property
    def authorities(self) -> str:
        """The authorities to trust; empty for gRPC's own list, on a machine that has none."""
        return self.ca or ssl.get_default_verify_paths().cafile or ""


@dataclass(frozen=True)
class Header:
    """One that goes with every call. It says where its value is, which may be a secret, and never has it.

    So it can be written and printed. Who reads it must have the same environment: children inherit ours.
    """

    name: str
    prefix: str
    """Of the value, as `Bearer `."""
    source: str
    """`$NAME` for a variable of the environment, `@FILE` for a file."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME: VALUE`, where VALUE, or what follows its first word, may be `$NAME` or `@FILE`.

        Raises:
            ConfigError: it is no header, or its value cannot be read; without what may be secret.
        """
        name, colon, value = text.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not _NAME.fullmatch(name):
            raise ConfigError("--header is not NAME: VALUE, as 'authorization: Bearer $TOKEN'")
        if _NOT_OURS_TO_SET.fullmatch(name):
            raise ConfigError(f"--header {name} cannot be set: it is gRPC's own, or binary")
        if found := _REFERENCE.fullmatch(value):
            prefix, source = found.groups()
            is_file = source.startswith("@")
            header = cls(name, prefix, f"@{paths.absolute(source[1:])}" if is_file else source)
        else:
            header = cls.kept(name, value)
        header.value()
        return header

    @classmethod
    def kept(cls, name: str, value: str) -> Self:
        """Put a value where it can be found: into our own environment, which other users cannot read.

        Raises:
            ConfigError: no header can have it.
        """
        header = cls(name, "", f"{_KEPT}{name}")
        os.environ[header.source[1:]] = header.checked(value)
        return header

    def value(self) -> str:
        """The value.

        Raises:
            ConfigError: it is not there any more, or none that a header can have.
        """
        where = self.source[1:]
        try:
            found = os.environ.get(where) if self.source[0] == "$" else Path(where).read_text("utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise ConfigError(f"--header {self.name}: cannot read {where}: {reason}") from error
        if found is None:
            raise ConfigError(f"--header {self.name}: ${where} is not set")
        return self.checked(self.prefix + found.strip())

    def checked(self, value: str) -> str:
        """The same value.

        Raises:
            ConfigError: no header can have it.
        """
        if not _VALUE.fullmatch(value):
            raise ConfigError(f"--header {self.name}: its value is empty, or not one line of ASCII")
        return value

    def __str__(self) -> str:
        return f"{self.name}: {'(hidden)' if self.source.startswith(_KEPT) else self.prefix + self.source}"


def parse_headers(texts: Sequence[str]) -> tuple[Header, ...]:
    """Read all headers of a command line; see `Header.parse`.

    Raises:
        ConfigError: one is none, two have one name, or all are too long together.
    """
    found = tuple(map(Header.parse, texts))
    names = [header.name for header in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--header {twice[0]} is given twice")
    if sum(len(header.name) + len(header.value()) for header in found) > _LARGEST_HEADERS:
        raise ConfigError(f"--header: all headers together are longer than {_LARGEST_HEADERS} bytes")
    return found


def beside(text: str, folder: Path) -> str:
    """A header of a configuration file: its @FILE is relative to `folder`."""
    name, _, value = text.partition(":")
    found = _REFERENCE.fullmatch(value.strip())
    if not found or found[2].startswith("$"):
        return text
    return f"{name}: {found[1]}@{paths.absolute(found[2][1:], folder)}"


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line, with every header as it may be shown.

    Raises:
        ConfigError: one is no header.
    """
    found = list(words)
    for number, word in enumerate(found):
        if word == "--header":
            found[number + 1] = str(Header.parse(found[number + 1]))
        elif word.startswith("--header="):
            found[number] = f"--header={Header.parse(word.partition('=')[2])}"
    return found


def with_hint(status: str, details: str) -> str:
    """What a server said, by the name of gRPC's status, and the option that helps if it wants a header."""
    # That is what Triton's restricted protocols say, and their status is UNAVAILABLE.
    wants_header = "expecting header" in details or status in ("UNAUTHENTICATED", "PERMISSION_DENIED")
    return f"{details}; see --header" if wants_header else details


@dataclass(frozen=True)
class Address:
    """One server."""

    url: str
    """host:port, grpcs://host:port, unix:/path, dns:///name:port, or grpcs+dns:///name:port."""
    rpc: Rpc = Rpc.OWN
    """Who carries the inferences; only host:port can be ours."""
    tls: Tls = Tls()
    headers: tuple[Header, ...] = ()
    found: str = ""
    """Host and port in numbers, once `located`: where both control and inferences connect to."""
    name: str = ""
    """That its certificate must have, where it was found by one; else that is the host's."""
    metrics: str = ""
    """Where its metrics are, as http://host:port/metrics; empty: where Triton has them by default."""

    @property
    def metrics_url(self) -> str:
        """Where its metrics are: on the port after gRPC's, unless it is known better; empty for a socket."""
        # A name may be several machines': these are the metrics of the one that is measured.
        host, _, port = (self.found or ":".join(self.host_and_port)).rpartition(":")
        return self.metrics or (f"http://{host}:{int(port) + 1}/metrics" if port else "")

    @property
    def is_encrypted(self) -> bool:
        """Whether the server is asked over TLS."""
        return self.url.startswith((_ENCRYPTED, _ENCRYPTED_DNS))

    @property
    def is_name(self) -> bool:
        """Whether it stands for every server that a name has; see `at`."""
        return self.url.startswith((_DNS, _ENCRYPTED_DNS))

    def at(self, ip: str) -> Self:
        """One of the servers that a name has: that at this IP address."""
        name, port = self.host_and_port
        host = f"[{ip}]" if ":" in ip else ip
        url = f"{_ENCRYPTED if self.is_encrypted else ''}{host}:{port}"
        # Said of the name, they are of each: at its own address, by the same scheme, port and path.
        return replace(self, url=url, name=name, metrics=_HOST.sub(f"//{host}", self.metrics, count=1))

    @property
    def target(self) -> str:
        """How gRPC's library calls the server."""
        if self.url.startswith(_ENCRYPTED_DNS):
            return f"{_DNS}{self.url.removeprefix(_ENCRYPTED_DNS)}"
        return self.url.removeprefix(_ENCRYPTED)

    @property
    def endpoint(self) -> str:
        """Where gRPC's library connects to."""
        return self.found or self.target

    def located(self) -> Self:
        """The same, with the first address of its name that takes connections.

        A name may have several, as localhost has in IPv6 and IPv4, and /etc/hosts any number, some of them
        dead. Two who look it up, each for itself, need not end at one. Where gRPC's library is the only one
        that connects, or nothing answers at all, nothing changes.
        """
        if self.found or self.needs_library:
            return self
        return replace(self, found=_first_that_answers(*self.host_and_port))

    @property
    def path(self) -> str:
        """Of a socket on this machine; empty for all others."""
        return self.url.removeprefix(_UNIX) if self.url.startswith(_UNIX) else ""

    @property
    def host_and_port(self) -> tuple[str, str]:
        """Host (an IPv6 address in brackets) and port; both empty for a socket on this machine."""
        host, _, port = ("" if self.path else self.target.removeprefix(_DNS)).rpartition(":")
        return host, port

    def ips(self) -> list[str]:
        """Every address that the host has, always in the same order: a DNS server gives them in turns.

        Raises:
            OSError: it has none.
            ValueError: it can have none, as a socket on this machine or what is no name.
        """
        host, port = self.host_and_port
        answers = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        return sorted({str(answer[4][0]) for answer in answers}, key=_place)

    @property
    def needs_library(self) -> bool:
        """Whether only gRPC's library can connect to it."""
        return self.is_encrypted or bool(self.path)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Names and values of the headers.

        Raises:
            ConfigError: a value is not where it was.
        """
        return tuple((header.name, header.value()) for header in self.headers)


def _place(ip: str) -> tuple[int, int]:
    address = ipaddress.ip_address(ip.partition("%")[0])
    return address.version, int(address)


def _first_that_answers(host: str, port: str) -> str:
    """Host and port in numbers; empty for a name that has one address only, or none that answers."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return ""
    if len(found) < 2:
        return ""
    for family, *_, address in found:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_ANSWERS_IN_S)
            probe.connect(address)
            return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"
    return ""

"""A network of a test's own: a namespace with a cable to us, and a DNS server. Without root, it skips."""

import contextlib
import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PREFIX = 29
"""Bits of the network that both ends of the cable are in."""
_A, _IN, _POINTER = 1, 1, 0xC00C
_ANSWER_FLAGS, _NO_SUCH_NAME = 0x8580, 3


@dataclass(frozen=True)
class Namespace:
    """Its name, and what its end of the cable is called in it."""

    name: str
    device: str

    @property
    def inside(self) -> tuple[str, ...]:
        """Words before a command that have it run there."""
        return "ip", "netns", "exec", self.name


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def new_namespace(ours: Sequence[str], theirs: str, nameserver: str = "") -> Iterator[Namespace]:
    """A namespace with an address, by which it reaches ours, and we it.

    Args:
        ours: addresses of our end.
        theirs: of its end.
        nameserver: whom commands there ask for names.
    """
    name, link = f"mlperf-test-{os.getpid()}", f"mlt{os.getpid() % 100_000}"
    if not shutil.which("ip") or not _ip("netns", "add", name):
        pytest.skip("no network namespaces here: they need root and iproute2")
    # `ip netns exec` puts what is in there in the place of what is in /etc.
    etc = Path("/etc/netns") / name
    try:
        peer = f"{link}p"
        if not _ip("link", "add", link, "type", "veth", "peer", "name", peer, "netns", name):
            pytest.skip("no veth devices here")
        for address in ours:
            assert _ip("addr", "add", f"{address}/{PREFIX}", "dev", link)
        assert _ip("link", "set", link, "up")
        assert _ip("-n", name, "addr", "add", f"{theirs}/{PREFIX}", "dev", peer)
        assert _ip("-n", name, "link", "set", peer, "up")
        assert _ip("-n", name, "link", "set", "lo", "up")
        if nameserver:
            etc.mkdir(parents=True)
            (etc / "resolv.conf").write_text(f"nameserver {nameserver}\n")
            (etc / "nsswitch.conf").write_text("hosts: files dns\n")
        yield Namespace(name, peer)
    finally:
        shutil.rmtree(etc, ignore_errors=True)
        _ip("netns", "del", name)
        _ip("link", "del", link)


@contextlib.contextmanager
def dns_server(address: str, names: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Answer questions for IPv4 addresses of these names, in another order each time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((address, 53))
        turns = itertools.count()

        def answer() -> None:
            while True:
                question, sender = listening.recvfrom(512)
                if not question:
                    return
                listening.sendto(_answer(question, names, next(turns)), sender)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listening.sendto(b"", (address, 53))
            thread.join()


def _answer(question: bytes, names: Mapping[str, Sequence[str]], turn: int) -> bytes:
    """RFC 1035, section 4: a header, the question again, an address in each record."""
    at, labels = 12, []
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    (kind,) = struct.unpack_from("!H", question, at + 1)
    known = names.get(".".join(labels))
    ips = list(known or ()) if kind == _A else []
    ips = ips[turn % max(1, len(ips)) :] + ips[: turn % max(1, len(ips))]
    flags = _ANSWER_FLAGS | (0 if known else _NO_SUCH_NAME)
    header = question[:2] + struct.pack("!HHHHH", flags, 1, len(ips), 0, 0)
    records = (struct.pack("!HHHIH", _POINTER, _A, _IN, 0, 4) + socket.inet_aton(ip) for ip in ips)
    return header + question[12 : at + 5] + b"".join(records)

"""Names with addresses of a test's own, as /etc/hosts has them."""

import socket
from typing import Any

import pytest


def name_addresses(monkeypatch: pytest.MonkeyPatch, name: str, addresses: list[str]) -> None:
    """Have this process, but no library written in C, find these addresses of a name, in their order."""
    real = socket.getaddrinfo

    def found(host: str, port: Any, *rest: Any, **more: Any) -> list[Any]:
        if host != name:
            return list(real(host, port, *rest, **more))
        return [entry for address in addresses for entry in real(address, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", found)

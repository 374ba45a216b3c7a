"""Which processes are those of the servers that are asked."""

import pytest

from harness.machine.host import use
from harness.run import serving
from harness.triton.address import Address


@pytest.mark.parametrize(
    ("url", "sees_all", "expected"),
    [
        ("127.0.0.1:1", True, "the processes of the server at 127.0.0.1:1 cannot be seen"),
        ("unix:/run/triton", True, "the processes of the server at unix:/run/triton cannot be seen"),
        ("10.0.0.1:8001", True, ""),
        ("10.0.0.1:8001", False, "the server at 10.0.0.1:8001 may be on this machine, in another container"),
    ],
)
def test_a_server_whose_processes_are_not_known_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, sees_all: bool, expected: str
) -> None:
    monkeypatch.setattr(serving, "is_on_this_host", lambda server: not server.url.startswith("10."))
    monkeypatch.setattr(use, "sees_all_processes", lambda: sees_all)
    assert serving.processes_of([Address(url)]) == (set(), expected)

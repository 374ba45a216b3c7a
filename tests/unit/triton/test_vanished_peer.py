"""A server whose machine vanishes, without a word, while a request is under way: in a network of its own."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.errors import InferenceError
from harness.machine.paths import PROJECT_ROOT
from harness.triton.address import Address
from harness.triton.channels import blocking_channel, open_channel
from harness.triton.http2 import message_prefix
from harness.triton.rpc import Rpc
from tests.network import PREFIX, Namespace, new_namespace

OURS, THEIRS, PORT = "198.51.100.1", "198.51.100.2", 8001  # RFC 5737: addresses for documentation
NOTICED_S = 60
"""10 s, and what a busy machine takes; the request itself has ten minutes."""
SILENT = f"""
import socket
listening = socket.create_server(("{THEIRS}", {PORT}))
print("ready", flush=True)
connected, _ = listening.accept()
connected.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
while connected.recv(1 << 16):
    pass
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace with an address that we reach."""
    with new_namespace([OURS], THEIRS) as made:
        yield made


def ask_blocking(rpc: Rpc) -> InferenceError:
    channel = blocking_channel(Address(f"{THEIRS}:{PORT}", rpc))
    with pytest.raises(InferenceError) as lost:
        channel.infer(message_prefix(1) + b"x", 600.0)
    channel.close()
    return lost.value


def ask_on_an_event_loop(rpc: Rpc) -> InferenceError:
    async def ask() -> Any:
        channel = await open_channel(Address(f"{THEIRS}:{PORT}", rpc), 600.0)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.infer(message_prefix(1) + b"x", answer.set_result)
        outcome = await answer
        await channel.close()
        return outcome

    outcome = asyncio.run(ask())
    assert isinstance(outcome, InferenceError)
    return outcome


@pytest.mark.parametrize("rpc", Rpc)
@pytest.mark.parametrize("ask", [ask_blocking, ask_on_an_event_loop])
def test_a_peer_that_vanishes_is_noticed_long_before_the_requests_deadline(
    namespace: Namespace, ask: Any, rpc: Rpc
) -> None:
    command = [*namespace.inside, sys.executable, "-c", SILENT]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            # Once the request has arrived. Not by a link that is down: that drops our probes on this side.
            gone = f"sleep 1; ip -n {namespace.name} addr del {THEIRS}/{PREFIX} dev {namespace.device}"
            began = time.monotonic()
            with subprocess.Popen(["sh", "-c", gone]):
                lost = ask(rpc)
            assert str(lost).startswith("UNAVAILABLE: ")
            assert "time" in str(lost)
            assert time.monotonic() - began < NOTICED_S
        finally:
            server.kill()

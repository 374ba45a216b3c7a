"""The one place that chooses what carries inferences: connections of our own, or gRPC's library."""

from typing import Protocol

from harness.triton.address import Address
from harness.triton.channel import BlockingChannel, Channel
from harness.triton.grpc_channel import GrpcBlockingChannel, GrpcChannel
from harness.triton.http2 import Done, Message
from harness.triton.rpc import Rpc


class AnyChannel(Protocol):
    """One server, asked many things at once on the event loop that this was opened on."""

    def infer(self, request: Message, done: Done) -> None:
        """Send a ModelInferRequest (see `messages`); `done` hears its outcome, later, on the event loop."""

    async def close(self) -> None:
        """Close the connection; inferences under way never end."""


class AnyBlockingChannel(Protocol):
    """One server, asked by one thread, which waits for each answer. It connects with the first request."""

    sent_again: int
    """Requests whose call ended before their answer: whether they were carried out, who knows."""

    def infer(self, request: Message, timeout_s: float) -> bytes:
        """Send a ModelInferRequest (see `messages`); its serialised ModelStreamInferResponse.

        Raises:
            RequestFailed: it was refused or lost.
            InferenceError: what answers is no gRPC server.
        """

    def close(self) -> None:
        """Close the connection; the next request would open another."""


async def open_channel(server: Address, timeout_s: float) -> AnyChannel:
    """Connect to a server; requests fail that have no answer after `timeout_s`.

    Raises:
        RequestFailed: nothing listens there.
        ConfigError: a header's value or a file for TLS cannot be read.
    """
    kind: type[Channel | GrpcChannel] = GrpcChannel if server.rpc == Rpc.GRPC else Channel
    return await kind.open(server, timeout_s)


def blocking_channel(server: Address) -> AnyBlockingChannel:
    """A channel to a server.

    Raises:
        ConfigError: a header's value or a file for TLS cannot be read.
    """
    return GrpcBlockingChannel(server) if server.rpc == Rpc.GRPC else BlockingChannel(server)

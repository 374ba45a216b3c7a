"""The one place that chooses what carries inferences: connections of our own, or gRPC's library."""

from typing import Protocol

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


async def open_channel(rpc: Rpc, url: str, timeout_s: float) -> AnyChannel:
    """Connect to host:port; requests fail that have no answer after `timeout_s`.

    Raises:
        RequestFailed: nothing listens there.
    """
    kind: type[Channel | GrpcChannel] = GrpcChannel if rpc == Rpc.GRPC else Channel
    return await kind.open(url, timeout_s)


def blocking_channel(rpc: Rpc, url: str) -> AnyBlockingChannel:
    """For the server at host:port."""
    return GrpcBlockingChannel(url) if rpc == Rpc.GRPC else BlockingChannel(url)

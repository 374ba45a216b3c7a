"""Who can carry inferences; an address names one, and `harness.triton.channels` opens what it names."""

from enum import StrEnum


class Rpc(StrEnum):
    """Who speaks gRPC."""

    OWN = "own"
    """`harness.triton.channel`."""
    GRPC = "grpcio"
    """gRPC's library: `harness.triton.grpc_channel`."""

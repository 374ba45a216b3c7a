"""Who can carry inferences; a job names one, and `harness.triton.channels` opens what it names."""

from enum import StrEnum


class Rpc(StrEnum):
    """Who speaks gRPC."""

    OWN = "own"
    """`harness.triton.channel`."""
    GRPC = "grpc"
    """gRPC's library: `harness.triton.grpc_channel`."""

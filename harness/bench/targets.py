"""What this project wants to reach on two CPU cores; on others the figures are for orientation only."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.models.spec import Platform


@dataclass(frozen=True)
class Target:
    """A bound on one figure, and what was measured."""

    name: str
    bound: float
    is_least: bool
    """Whether the figure must be at least, rather than at most, the bound."""
    unit: str
    measured: float

    @property
    def is_met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.bound if self.is_least else self.measured <= self.bound

    def __str__(self) -> str:
        """A line for the report."""
        sign = ">=" if self.is_least else "<="
        word = "met" if self.is_met else "MISSED"
        return f"{word}: {self.name} {self.measured:.4g}{self.unit}, wanted {sign} {self.bound:g}{self.unit}"


OFFLINE_OF_BARE: Mapping[tuple[str, Platform], float] = {
    ("resnet50", Platform.ONNXRUNTIME): 0.97,
    ("mobilenet", Platform.ONNXRUNTIME): 0.92,
    ("ssd-resnet34", Platform.ONNXRUNTIME): 0.95,
}
SINGLE_STREAM_OVER_BARE_MS: Mapping[tuple[str, Platform], float] = {
    ("mobilenet", Platform.ONNXRUNTIME): 0.7,
}
SERVER_OF_OFFLINE: Mapping[tuple[str, Platform], float] = {
    ("mobilenet", Platform.ONNXRUNTIME): 0.8,
}
"""Share of our own Offline throughput that Server must carry."""
SERVER_P99_MS = 50.0
"""With this p99, at that rate."""
OF_PLAIN = 1.0
MEMORY_MB = 300.0
NULL_QUERIES_PER_S = {1: 3200.0, 64: 14000.0}
"""By requests in flight."""
NULL_CLIENT_US = {"shm": 80.0, "grpc": 220.0}
"""By transport, of a 3x224x224 float32 sample."""

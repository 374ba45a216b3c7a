"""When each request of a test was issued and answered."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.rounds import Scenario


@dataclass(frozen=True)
class Recorded:
    """One entry per request, (n,) uint32 each; times since the first query."""

    issued_us: npt.NDArray[np.uint32]
    completed_us: npt.NDArray[np.uint32]
    samples: npt.NDArray[np.uint32]


def load(path: Path) -> Recorded:
    """Read a timeline file."""
    with np.load(path) as arrays:
        return Recorded(arrays["issued_us"], arrays["completed_us"], arrays["samples"])


def query_latencies_us(
    recorded: Recorded, scenario: Scenario
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Latencies, and how often each counts: samples in Offline, queries elsewhere."""
    latencies = recorded.completed_us.astype(np.int64) - recorded.issued_us.astype(np.int64)
    if scenario == Scenario.OFFLINE:
        return latencies, recorded.samples.astype(np.int64)
    if scenario == Scenario.MULTI_STREAM:
        _, query = np.unique(recorded.issued_us, return_inverse=True)
        slowest = np.zeros(query.max(initial=-1) + 1, np.int64)
        np.maximum.at(slowest, query, latencies)
        latencies = slowest
    return latencies, np.ones(len(latencies), np.int64)

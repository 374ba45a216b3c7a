"""An Offline test as its batches: how long each took, and how long instances had nothing to do.

All samples are there from the beginning, so that an instance begins its next batch when it has answered one:
that which was answered as many batches before as there are instances. Of the first ones, what is beyond the
usual time is start-up; after its last one, an instance waits for the others: the tail.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.run.worker.timeline import Recorded

_FEWEST_PER_INSTANCE = 3
"""With fewer, nobody can tell the first batch from the usual one."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batches:
    """In the order in which they were answered; (n,) each."""

    ended_us: Floats
    took_us: Floats
    instances: int

    @property
    def usual(self) -> Floats:
        """Times of those that an instance began after another one; of all, where they are too few."""
        return self.took_us[self.instances :] if self.are_enough else self.took_us

    @property
    def fewest(self) -> int:
        """Of which start-up and tail can be told."""
        return _FEWEST_PER_INSTANCE * self.instances

    @property
    def are_enough(self) -> bool:
        """Whether start-up and tail can be told."""
        return len(self.took_us) >= self.fewest

    @property
    def start_up_us(self) -> float:
        """How long an instance did nothing, or worked slower, at the beginning; the mean of all."""
        late = self.took_us[: self.instances] - np.median(self.usual)
        return float(np.maximum(late, 0.0).mean())

    @property
    def tail_us(self) -> float:
        """How long an instance had nothing to do at the end; the mean of all."""
        return float((self.ended_us[-1] - self.ended_us[-self.instances :]).mean())

    @property
    def more(self) -> float:
        """By which share the rate were higher without both, as it is in a test that is long enough."""
        idle = self.start_up_us + self.tail_us
        return idle / (float(self.ended_us[-1]) - idle)


def of_test(recorded: Recorded, instances: int, executions: int = 0) -> Batches:
    """Take a test apart.

    Args:
        recorded: its requests.
        instances: that work at the same time, of all servers.
        executions: batches that Triton counted, of which each may have several requests; 0 where it did not,
            so that each request is a batch.
    """
    answered_us = np.sort(recorded.completed_us).astype(np.float64)
    ended_us = answered_us[_ends(answered_us, executions or len(answered_us))]
    instances = max(1, min(instances, len(ended_us)))
    began_us = np.concatenate([np.zeros(instances), ended_us[:-instances]])
    return Batches(ended_us, ended_us - began_us, instances)


def _ends(answered_us: Floats, count: int) -> npt.NDArray[np.int64]:
    """Which answers are the last of so many batches: those with the longest gaps behind them."""
    longest = np.argsort(-np.diff(answered_us), kind="stable")[: max(count, 1) - 1]
    return np.append(np.sort(longest), len(answered_us) - 1)


def answered_together(completed_us: npt.NDArray[Any], samples: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """When something was answered, ascending, and how many samples; answers close together are one."""
    order = np.argsort(completed_us, kind="stable")
    times_us = completed_us[order].astype(np.float64)
    gaps_us = np.diff(times_us, prepend=0.0)
    # Half of the time is in gaps that are at least so long: those between batches, not those within them.
    longest_first = np.sort(gaps_us)[::-1]
    usual_us = longest_first[np.searchsorted(np.cumsum(longest_first), times_us[-1] / 2)]
    ends = np.append(np.flatnonzero(gaps_us[1:] > usual_us / 4), len(times_us) - 1)
    return times_us[ends], np.diff(np.cumsum(samples[order].astype(np.float64))[ends], prepend=0.0)

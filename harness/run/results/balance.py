"""How evenly several servers shared a test. A pure function of what each of them did."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.run.worker.job import Share


@dataclass(frozen=True)
class Part:
    """One server's; times are means of a request, in ms."""

    url: str
    transport: str
    samples: int
    share: float
    """Of all samples, 0 to 1."""
    mean_batch_size: float
    queue_ms: float
    batch_ms: float
    """Of the batch that a request was in."""


def parts(shares: Sequence[Share]) -> list[Part]:
    """What each server did, as it is told."""
    whole = sum(one.statistics.samples for one in shares)
    return [_part(one, whole) for one in shares]


def _part(one: Share, whole: int) -> Part:
    did = one.statistics
    requests = max(1, did.requests)
    return Part(
        url=one.url,
        transport=one.transport,
        samples=did.samples,
        share=did.samples / max(1, whole),
        mean_batch_size=did.mean_batch_size,
        queue_ms=did.queue_ns / requests / 1e6,
        batch_ms=did.compute_ns / requests / 1e6,
    )


def line(shares: Sequence[Share]) -> str:
    """The balance in a sentence without its end; empty where one server did it all."""
    if not shares:
        return ""
    of_all = [part.share for part in parts(shares)]
    return (
        f"balance: {len(of_all)} servers answered {min(of_all):.1%} to {max(of_all):.1%} of the samples each "
        f"(even is {1 / len(of_all):.1%})"
    )

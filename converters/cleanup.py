"""What is undone when a signal ends the process in the middle of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_pending: list[Callable[[], object]] = []


@contextmanager
def on_signal(action: Callable[[], object]) -> Iterator[None]:
    """Call `action` if a signal ends the process within the block."""
    _pending.append(action)
    try:
        yield
    finally:
        _pending.remove(action)


@contextmanager
def ensured(action: Callable[[], object]) -> Iterator[None]:
    """Call `action` when the block ends, however it ends.

    Args:
        action: quick, and harmless when it is called twice.
    """
    with on_signal(action):
        try:
            yield
        finally:
            action()


def run_pending() -> None:
    """Call the actions of all blocks that have not ended, the innermost first."""
    for action in reversed(_pending):
        action()

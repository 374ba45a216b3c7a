"""A function over many items in threads, such that Ctrl-C always ends it.

`concurrent.futures` cannot promise that: a KeyboardInterrupt inside its locks leaves one of them held, and
its workers wait for it for ever.
"""

import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_JOIN_TIMEOUT_S = 3.0
"""How long threads may take for what they are at when the caller gives up."""


def in_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int
) -> Generator[_Result, None, None]:
    """Yield `function(item)` for each item, in order; the first exception ends it.

    Close it (`contextlib.closing`) to be sure that no thread is at work any more.
    """
    positions = itertools.count()
    answers: SimpleQueue[tuple[int, _Result | None, BaseException | None]] = SimpleQueue()
    is_over = False

    def work() -> None:
        while not is_over and (position := next(positions)) < len(items):
            try:
                answers.put((position, function(items[position]), None))
            except BaseException as error:  # noqa: BLE001 - raised again by whoever takes the answer
                answers.put((position, None, error))

    # Daemons: should a thread be stuck, the process ends all the same.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(items)))]
    try:
        for thread in threads:
            thread.start()
        yield from _in_order(answers, len(items))
    finally:
        is_over = True
        for thread in threads:
            if thread.ident is not None:
                thread.join(_JOIN_TIMEOUT_S)


def _in_order(
    answers: "SimpleQueue[tuple[int, _Result | None, BaseException | None]]", count: int
) -> Iterator[_Result]:
    waiting: dict[int, _Result] = {}
    for position in range(count):
        while position not in waiting:
            index, result, error = answers.get()
            if error is not None:
                raise error
            waiting[index] = result  # type: ignore[assignment]
        yield waiting.pop(position)

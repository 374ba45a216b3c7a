"""How our backends calculate a batch; what they answer is tested with the real server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.models.model_config import RUN_BATCH

FEED = {"in": np.arange(16, dtype=np.float32).reshape(8, 2)}


def batcher(batching: Any, run: Any, run_batch: str, max_batch_size: int = 8) -> Any:
    tensors = tuple(batching.Tensor(name, np.dtype(np.float32), (2,)) for name in ("in", "out"))
    config = batching.Config(
        model="m",
        file=Path(),
        platform="",
        max_batch_size=max_batch_size,
        inputs=tensors[:1],
        outputs=tensors[1:],
        parameters={RUN_BATCH: run_batch},
        graph_level=0,
        gpu=None,
    )
    return batching.Batcher(config, run)


@pytest.mark.parametrize(
    ("run_batch", "parts"), [("0", [8]), ("3", [3, 3, 2]), ("4", [4, 4]), ("8", [8]), ("9", [8])]
)
def test_a_batch_is_calculated_in_parts_of_the_size_that_the_model_asks_for(
    batching: Any, run_batch: str, parts: list[int]
) -> None:
    seen = []
    # As some frameworks do, it answers in the same memory every time.
    memory = np.empty((8, 2), np.float32)

    def run(feed: Any, wanted: Any) -> list[Any]:
        assert wanted == ["out"]
        rows = len(feed["in"])
        seen.append(rows)
        memory[:rows] = feed["in"] * 2
        return [memory[:rows]]

    made = batcher(batching, run, run_batch)
    (result,) = made._calculate(FEED, made._config.outputs, 8)
    assert seen == parts
    np.testing.assert_array_equal(result, FEED["in"] * 2)


def test_a_part_with_too_few_rows_is_an_error_rather_than_repeated(batching: Any) -> None:
    made = batcher(batching, lambda feed, _: [feed["in"][:1]], "4")
    with pytest.raises(ValueError, match=r"output 'out' is float32 \[1, 2\], config\.pbtxt says .*\[4, 2\]"):
        made._calculate(FEED, made._config.outputs, 8)


def test_a_model_without_a_batch_axis_is_never_calculated_in_parts(batching: Any) -> None:
    made = batcher(batching, lambda feed, _: [feed["in"][0]], "1", max_batch_size=0)
    (result,) = made._calculate(FEED, made._config.outputs, 1)
    assert result.shape == (2,)

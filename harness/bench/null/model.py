"""A Triton model that computes nothing, so that what is left is the cost of asking; it answers 0.

Its source is copied into a repository of the benchmark's own and runs inside the server's Python stub.
"""

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the answers."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self._delay_s = float(parameters.get("delay_us", 0)) / 1e6
        self._is_counting = "is_counting" in parameters
        sizes = range(1, 1 + int(config["max_batch_size"]))
        answers = [np.zeros(1, np.int64), *(np.zeros((size, 1), np.int64) for size in sizes)]
        self._answers = [[pb_utils.Tensor("NULL_OUTPUT", answer)] for answer in answers]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Give one answer to everybody, after the time that it is to take."""
        if self._delay_s:
            time.sleep(self._delay_s)
        if self._is_counting:
            return [pb_utils.InferenceResponse(self._answers[_samples(request)]) for request in requests]
        return [pb_utils.InferenceResponse(self._answers[0]) for _ in requests]


def _samples(request: Any) -> int:
    """How many samples there are in a request; looked for only where there may be several."""
    return len(pb_utils.get_input_tensor_by_name(request, "NULL_INPUT").as_numpy())

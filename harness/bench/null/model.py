"""A Triton model that computes nothing, so that what is left is the cost of asking; it answers 0.

Its source is copied into a repository of the benchmark's own and runs inside the server's Python stub.
"""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, _: dict[str, str]) -> None:
        """Make the one answer."""
        self._tensors = [pb_utils.Tensor("NULL_OUTPUT", np.zeros(1, np.int64))]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Give it to everybody."""
        return [pb_utils.InferenceResponse(self._tensors) for _ in requests]

"""A Triton model that misbehaves on purpose, with MobileNet's tensors: real server, real failures.

FAULT and TRIGGER are filled in by the test; the model is sound until the file TRIGGER exists.
"""

import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FAULT = "{fault}"
TRIGGER = Path("{trigger}")


class TritonPythonModel:
    def initialize(self, args):
        self.output = json.loads(args["model_config"])["output"][0]["name"]
        self.failed = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        samples = pb_utils.get_input_tensor_by_name(request, "input:0").as_numpy()
        scores = np.zeros((len(samples), 1001), np.float32)
        scores[:, 66] = 1
        if TRIGGER.exists():
            self.failed += 1
            if FAULT == "error":
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("out of luck"))
            if FAULT == "one error" and self.failed == 1:
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("out of luck"))
            if FAULT == "shape":
                scores = scores[:, :1000]
            if FAULT == "dtype":
                scores = scores.astype(np.float64)
            if FAULT == "nan":
                scores[:, 5] = np.nan
            if FAULT == "hang":
                time.sleep(3600)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, scores)])

"""A Triton model with ssd-resnet34's tensors that finds as many boxes as an image's first number says."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        number = int(image[0, 0, 0, 0])
        count = number % 4
        boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (1, count, 1))
        labels = np.full((1, count), 1 + number % 80, np.int64)
        scores = np.full((1, count), 0.5, np.float32)
        outputs = {"bboxes": boxes, "labels": labels, "scores": scores}
        return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in outputs.items()])

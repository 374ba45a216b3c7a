"""MobileNet-v1 1.0 224 (arXiv:1704.04861)."""

from harness.models.platforms import Platform
from harness.models.recipes import IMAGENET_MOBILENET, fit
from harness.models.spec import (
    SAME_GRAPH,
    DType,
    Layout,
    ModelSpec,
    Target,
    Task,
    TensorSpec,
    Variant,
    Weights,
    on_openvino,
)


def _variant(
    platform: Platform, layout: Layout, input_name: str, output_name: str, tolerance: float
) -> Variant:
    """The published graph, or an export of it; PyTorch's module carries the same weights."""
    preprocess = fit(IMAGENET_MOBILENET, layout=layout)
    return Variant(
        platform=platform,
        input=TensorSpec(input_name, DType.FP32, preprocess.shape),
        outputs=(TensorSpec(output_name, DType.FP32, (1001,)),),
        preprocess=preprocess,
        label_offset=-1,
        max_batch_size=64,
        source="tensorflow",
        tolerance=tolerance,
    )


_OUTPUT = "MobilenetV1/Predictions/Reshape_1"
_ONNXRUNTIME = _variant(Platform.ONNXRUNTIME, Layout.NCHW, "input:0", f"{_OUTPUT}:0", 1e-4)

MOBILENET = ModelSpec(
    name="mobilenet",
    title="MobileNet-v1 1.0 224",
    aliases=("mobilenet-v1",),
    task=Task.CLASSIFICATION,
    target=Target(metric="top-1", reference=0.7168, factor=0.98, origin="MLPerf Inference v0.5"),
    rounds=("v0.5",),
    performance_sample_count=1024,
    quick_sample_count=32,
    server_target_latency_ms=10,
    multi_stream_samples_per_query=8,
    sources={
        "tensorflow": Weights(
            filename="mobilenet_v1_1.0_224.tgz",
            urls=("http://download.tensorflow.org/models/mobilenet_v1_2018_08_02/mobilenet_v1_1.0_224.tgz",),
            checksum="sha256:2fadeabb9968ec6833bee903900dda6e61b3947200535874ce2fe42a8493abc0",
            member="mobilenet_v1_1.0_224_frozen.pb",
            size_bytes=94_321_559,
        ),
    },
    variants={
        Platform.TENSORFLOW: _variant(Platform.TENSORFLOW, Layout.NHWC, "input", _OUTPUT, SAME_GRAPH),
        Platform.TENSORFLOW_SAVEDMODEL: _variant(
            Platform.TENSORFLOW_SAVEDMODEL, Layout.NHWC, "input", _OUTPUT, SAME_GRAPH
        ),
        Platform.ONNXRUNTIME: _ONNXRUNTIME,
        Platform.OPENVINO: on_openvino(_ONNXRUNTIME),
        Platform.PYTORCH: _variant(Platform.PYTORCH, Layout.NCHW, "INPUT__0", "OUTPUT__0", 1e-4),
        Platform.TFLITE: _variant(Platform.TFLITE, Layout.NHWC, "input", _OUTPUT, 1e-4),
    },
)

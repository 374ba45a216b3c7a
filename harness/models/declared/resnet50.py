"""ResNet-50 v1.5: arXiv:1512.03385, with a down-sampling block's stride in its 3x3 convolution."""

from harness.models.platforms import Platform
from harness.models.recipes import IMAGENET, IMAGENET_PYTORCH, fit
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


def _tensorflow_family(platform: Platform, layout: Layout, suffix: str, tolerance: float) -> Variant:
    """TensorFlow's graph, or an export of it with the same tensor names (ONNX keeps the `:0`)."""
    preprocess = fit(IMAGENET, layout=layout)
    return Variant(
        platform=platform,
        input=TensorSpec(f"input_tensor{suffix}", DType.FP32, preprocess.shape),
        outputs=(
            # The arg-max is part of the published graph: 8 bytes an image instead of 4 kB.
            TensorSpec(f"ArgMax{suffix}", DType.INT64, ()),
            TensorSpec(f"softmax_tensor{suffix}", DType.FP32, (1001,), is_requested=False),
        ),
        preprocess=preprocess,
        label_offset=-1,
        max_batch_size=64,
        source="tensorflow",
        tolerance=tolerance,
    )


_ONNXRUNTIME = _tensorflow_family(Platform.ONNXRUNTIME, Layout.NCHW, ":0", 1e-4)

RESNET50 = ModelSpec(
    name="resnet50",
    title="ResNet-50 v1.5",
    aliases=("resnet50-v1.5",),
    task=Task.CLASSIFICATION,
    target=Target(metric="top-1", reference=0.7646, factor=0.99, origin="MLPerf Inference, v0.5 to v6.1"),
    rounds=("v0.5", "v0.7", "v1.0", "v1.1", "v2.0", "v2.1", "v5.0", "v5.1", "v6.0", "v6.1"),
    performance_sample_count=1024,
    quick_sample_count=16,
    server_target_latency_ms=15,
    multi_stream_samples_per_query=8,
    sources={
        "tensorflow": Weights(
            filename="resnet50_v1.pb",
            urls=(
                "https://zenodo.org/record/2535873/files/resnet50_v1.pb",
                "https://armi.in/files/resnet50_v1.pb",
            ),
            checksum="md5:7b94a2da05dd30f6c0af23a46bc08886",
        ),
        "pytorch": Weights(
            filename="resnet50-19c8e357.pth",
            urls=("https://zenodo.org/record/4588417/files/resnet50-19c8e357.pth",),
            checksum="md5:9e9c86b324d80e65229fab49b8d9a8e8",
        ),
    },
    variants={
        Platform.TENSORFLOW: _tensorflow_family(Platform.TENSORFLOW, Layout.NHWC, "", SAME_GRAPH),
        Platform.TENSORFLOW_SAVEDMODEL: _tensorflow_family(
            Platform.TENSORFLOW_SAVEDMODEL, Layout.NHWC, "", SAME_GRAPH
        ),
        Platform.ONNXRUNTIME: _ONNXRUNTIME,
        Platform.OPENVINO: on_openvino(_ONNXRUNTIME),
        Platform.TFLITE: _tensorflow_family(Platform.TFLITE, Layout.NHWC, "", 1e-4),
        Platform.PYTORCH: Variant(
            platform=Platform.PYTORCH,
            input=TensorSpec("INPUT__0", DType.FP32, IMAGENET_PYTORCH.shape),
            outputs=(TensorSpec("OUTPUT__0", DType.FP32, (1000,)),),
            preprocess=IMAGENET_PYTORCH,
            label_offset=0,
            max_batch_size=64,
            source="pytorch",
            tolerance=1e-3,
        ),
    },
)

"""SSD-ResNet34 1200x1200 on COCO, MLPerf's own network (arXiv:1512.02325, arXiv:1512.03385)."""

from harness.models.platforms import Platform
from harness.models.recipes import COCO_1200_ONNX, COCO_1200_PT, COCO_1200_TF
from harness.models.spec import (
    SAME_GRAPH,
    BoxOrder,
    Detection,
    DType,
    ModelSpec,
    Nms,
    Target,
    Task,
    TensorSpec,
    Variant,
    Weights,
    on_openvino,
)

SLOTS = 200
"""Most detections per image (reference: `max_output` of its decoder)."""

_SCORE_THRESHOLD = 0.05
"""Inside the graphs, and again in the reference's post-processing of all but its ONNX profile, whose 0.5
cuts off detections that count."""

_TENSORFLOW = Variant(
    platform=Platform.TENSORFLOW,
    input=TensorSpec("image", DType.FP32, COCO_1200_TF.shape),
    outputs=(
        TensorSpec("detection_bboxes", DType.FP32, (SLOTS, 4)),
        TensorSpec("detection_classes", DType.FP32, (SLOTS,)),
        TensorSpec("detection_scores", DType.FP32, (SLOTS,)),
    ),
    preprocess=COCO_1200_TF,
    max_batch_size=4,
    source="onnx",
    tolerance=1e-3,
    detection=Detection(
        boxes="detection_bboxes",
        scores="detection_scores",
        classes="detection_classes",
        is_contiguous=True,
        score_threshold=_SCORE_THRESHOLD,
    ),
)
_ONNXRUNTIME = Variant(
    platform=Platform.ONNXRUNTIME,
    input=TensorSpec("image", DType.FP32, COCO_1200_ONNX.shape),
    outputs=(
        TensorSpec("bboxes", DType.FP32, (-1, 4)),
        TensorSpec("labels", DType.INT64, (-1,)),
        TensorSpec("scores", DType.FP32, (-1,)),
    ),
    preprocess=COCO_1200_ONNX,
    # The published file takes one image, and answers with as many boxes as it found.
    max_batch_size=0,
    source="onnx",
    tolerance=SAME_GRAPH,
    detection=Detection(
        boxes="bboxes",
        scores="scores",
        classes="labels",
        box_order=BoxOrder.XYXY,
        is_contiguous=True,
        score_threshold=_SCORE_THRESHOLD,
    ),
)
_PYTORCH = Variant(
    platform=Platform.PYTORCH,
    input=TensorSpec("INPUT__0", DType.FP32, COCO_1200_PT.shape),
    outputs=(
        TensorSpec("OUTPUT__0", DType.FP32, (SLOTS, 4)),
        TensorSpec("OUTPUT__1", DType.INT64, (SLOTS,)),
        TensorSpec("OUTPUT__2", DType.FP32, (SLOTS,)),
    ),
    preprocess=COCO_1200_PT,
    max_batch_size=4,
    source="onnx",
    tolerance=1e-3,
    detection=Detection(
        boxes="OUTPUT__0",
        classes="OUTPUT__1",
        scores="OUTPUT__2",
        box_order=BoxOrder.XYXY,
        is_contiguous=True,
        score_threshold=_SCORE_THRESHOLD,
    ),
    nms_choices=(Nms.CORRECTED, Nms.REFERENCE),
)

SSD_RESNET34 = ModelSpec(
    name="ssd-resnet34",
    title="SSD-ResNet34 1200",
    task=Task.DETECTION,
    target=Target(metric="mAP", reference=0.20, factor=0.99, origin="MLPerf Inference v0.5 to v2.0"),
    rounds=("v0.5", "v0.7", "v1.0", "v1.1", "v2.0"),
    performance_sample_count=64,
    quick_sample_count=2,
    server_target_latency_ms=100,
    multi_stream_samples_per_query=8,
    sources={
        # The published PyTorch file is a pickled module, which runs any code when it is loaded, and the
        # TensorFlow file has no published checksum: both are built from this one's weights.
        "onnx": Weights(
            filename="resnet34-ssd1200.onnx",
            urls=("https://zenodo.org/record/3228411/files/resnet34-ssd1200.onnx",),
            # OpenVINO's Open Model Zoo, ssd-resnet34-1200-onnx/model.yml.
            checksum="sha256:b417a8186967f1e78670b0075aa72a10e5c7d1a6d5c08af9d13dc97f3d29ef0d",
            size_bytes=80_363_696,
        ),
    },
    variants={
        Platform.TENSORFLOW: _TENSORFLOW,
        Platform.ONNXRUNTIME: _ONNXRUNTIME,
        Platform.OPENVINO: on_openvino(_ONNXRUNTIME),
        Platform.PYTORCH: _PYTORCH,
    },
)

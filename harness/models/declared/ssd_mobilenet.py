"""SSD-MobileNet-v1 300x300 on COCO (arXiv:1512.02325, arXiv:1704.04861)."""

from harness.models.platforms import Platform
from harness.models.recipes import COCO_300
from harness.models.spec import (
    SAME_GRAPH,
    Detection,
    DType,
    ModelSpec,
    Target,
    Task,
    TensorSpec,
    Variant,
    Weights,
    on_openvino,
)

SLOTS = 100
"""Detections per image in the published graph's outputs (`max_total_detections` of its pipeline.config)."""


def _variant(platform: Platform, suffix: str, tolerance: float) -> Variant:
    """The published graph, or an export of it: preprocessing and NMS are inside."""
    detection = Detection(
        boxes=f"detection_boxes{suffix}",
        scores=f"detection_scores{suffix}",
        classes=f"detection_classes{suffix}",
        count=f"num_detections{suffix}",
    )
    return Variant(
        platform=platform,
        input=TensorSpec(f"image_tensor{suffix}", DType.UINT8, COCO_300.shape),
        outputs=(
            TensorSpec(detection.count, DType.FP32, ()),
            TensorSpec(detection.boxes, DType.FP32, (SLOTS, 4)),
            TensorSpec(detection.scores, DType.FP32, (SLOTS,)),
            TensorSpec(detection.classes, DType.FP32, (SLOTS,)),
        ),
        preprocess=COCO_300,
        max_batch_size=32,
        source="tensorflow",
        tolerance=tolerance,
        detection=detection,
    )


_ONNXRUNTIME = _variant(Platform.ONNXRUNTIME, ":0", 1e-3)

TFLITE_DETECTION = "TFLite_Detection_PostProcess"
"""LiteRT's operation for decoding and NMS; its further outputs have `:1` to `:3` added."""

_TFLITE = Variant(
    platform=Platform.TFLITE,
    input=TensorSpec("normalized_input_image_tensor", DType.UINT8, COCO_300.shape),
    outputs=(
        TensorSpec(TFLITE_DETECTION, DType.FP32, (SLOTS, 4)),
        TensorSpec(f"{TFLITE_DETECTION}:1", DType.FP32, (SLOTS,)),
        TensorSpec(f"{TFLITE_DETECTION}:2", DType.FP32, (SLOTS,)),
        TensorSpec(f"{TFLITE_DETECTION}:3", DType.FP32, ()),
    ),
    preprocess=COCO_300,
    # That operation takes one image; our backend runs a batch one by one.
    max_batch_size=32,
    source="tensorflow",
    tolerance=1e-3,
    detection=Detection(
        boxes=TFLITE_DETECTION,
        classes=f"{TFLITE_DETECTION}:1",
        scores=f"{TFLITE_DETECTION}:2",
        count=f"{TFLITE_DETECTION}:3",
        class_offset=1,
    ),
)

SSD_MOBILENET = ModelSpec(
    name="ssd-mobilenet",
    title="SSD-MobileNet-v1 300",
    task=Task.DETECTION,
    target=Target(metric="mAP", reference=0.22, factor=0.99, origin="MLPerf Inference v0.5 to v2.0"),
    rounds=("v0.5", "v0.7", "v1.0", "v1.1", "v2.0"),
    performance_sample_count=256,
    quick_sample_count=16,
    server_target_latency_ms=10,
    multi_stream_samples_per_query=8,
    sources={
        "tensorflow": Weights(
            filename="ssd_mobilenet_v1_coco_2018_01_28.tar.gz",
            urls=(
                "http://download.tensorflow.org/models/object_detection/ssd_mobilenet_v1_coco_2018_01_28.tar.gz",
                "https://zenodo.org/record/3361502/files/ssd_mobilenet_v1_coco_2018_01_28.tar.gz",
            ),
            # OpenVINO's Open Model Zoo, ssd_mobilenet_v1_coco/model.yml.
            checksum="sha256:8788f89108519fd1102b8a5c2ac861cf6d86603571b6ce5bbd1c245b7fe005e3",
            member="ssd_mobilenet_v1_coco_2018_01_28/frozen_inference_graph.pb",
            size_bytes=76_541_073,
        ),
    },
    variants={
        Platform.TENSORFLOW: _variant(Platform.TENSORFLOW, "", SAME_GRAPH),
        Platform.ONNXRUNTIME: _ONNXRUNTIME,
        Platform.OPENVINO: on_openvino(_ONNXRUNTIME),
        Platform.TFLITE: _TFLITE,
    },
)

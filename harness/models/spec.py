"""The declaration of a model: every fact about it, in frozen dataclasses. Standard library only.

Converters, config.pbtxt, the harness, the tests and the README's table all derive from these.
What differs by framework (tensors, layout, preprocessing, label offset) sits on `Variant`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.models.platforms import Platform


class Task(StrEnum):
    """What a model does, and so how its answers are scored."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"


class DType(StrEnum):
    """Element types that our models use; the value is numpy's name."""

    FP32 = "float32"
    FP64 = "float64"
    """Of a user's file."""
    FP16 = "float16"
    UINT8 = "uint8"
    INT8 = "int8"
    INT64 = "int64"
    INT32 = "int32"

    @property
    def triton(self) -> str:
        """Name in Triton's protocol and, prefixed with TYPE_, in config.pbtxt."""
        return self.value.upper().replace("FLOAT", "FP")

    @property
    def size_bytes(self) -> int:
        """Of one element."""
        return int(self.value.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return not self.value.startswith("float")


class Layout(StrEnum):
    """Axis order of an image tensor."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class Resize(StrEnum):
    """How a decoded image becomes the model's size; see `harness.data.preprocess` for the arithmetic."""

    ASPECT_AREA = "aspect-area"
    ASPECT_LINEAR = "aspect-linear"
    ASPECT_PILLOW_BILINEAR = "aspect-pillow-bilinear"
    STRETCH_LINEAR = "stretch-linear"


class ChannelOrder(StrEnum):
    """Which colour comes first."""

    RGB = "RGB"
    BGR = "BGR"


class BoxOrder(StrEnum):
    """What a box's four numbers are."""

    YXYX = "yxyx"
    """ymin, xmin, ymax, xmax: TensorFlow's, and the accuracy log's."""
    XYXY = "xyxy"
    XYWH = "xywh"
    """left, top, width, height: COCO's annotations'."""
    CXCYWH = "cxcywh"
    """x and y of the centre, width, height: YOLO's and DETR's."""


PIXELS = ",pixels"
BOX_FORMS = tuple(f"{order}{unit}" for unit in ("", PIXELS) for order in BoxOrder)
"""What the numbers are, and in which unit: of the network's input, or else shares of the image's sides."""


class Numbering(StrEnum):
    """What a detector's class numbers mean, by the categories of the annotation file."""

    COCO = "coco"
    COCO_LESS_1 = "coco-1"
    FROM_1 = "1-80"
    FROM_0 = "0-79"

    @property
    def meaning(self) -> str:
        """In a sentence."""
        return {
            Numbering.COCO: "k is the category id k (COCO's are 1 to 90)",
            Numbering.COCO_LESS_1: "k is the category id k+1",
            Numbering.FROM_1: "k is the k-th category of the annotation file, from 1",
            Numbering.FROM_0: "k is the k-th category of the annotation file, from 0",
        }[self]


class Precision(StrEnum):
    """What a framework that has the choice is asked to calculate in."""

    AUTO = "auto"
    """Its own choice: OpenVINO's is bf16 on CPUs that have instructions for it."""
    FP32 = "fp32"


class Nms(StrEnum):
    """How ssd-resnet34's graph finds the boxes that show the same object."""

    CORRECTED = "corrected"
    REFERENCE = "reference"
    """The MLPerf reference's PyTorch model, bug for bug: boxes that do not touch may count as overlapping,
    since the sides of their intersection, both negative, are multiplied."""


@dataclass(frozen=True)
class Step:
    """One float32 operation on an image; `values` are per channel in its order, or one for all channels."""

    op: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Reject what `harness.data.preprocess` cannot carry out."""
        if self.op not in ("divide", "subtract", "multiply"):
            raise ValueError(f"unknown preprocessing operation {self.op!r}")
        if len(self.values) not in (1, 3):
            raise ValueError(f"{self.op} takes 1 or 3 values, not {len(self.values)}")


@dataclass(frozen=True)
class Quantization:
    """How a quantised tensor stores real numbers: q = round(x / scale) + zero_point (TFLite's and ONNX's)."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Preprocess:
    """A recipe of the MLPerf reference, named as its `--dataset` choice, or one that a user spelled out.

    The steps are kept apart and in order: folding them changes the last bits of the result.
    """

    name: str
    resize: Resize
    size_px: tuple[int, int]
    """(height, width)"""
    steps: tuple[Step, ...]
    """Applied in float32, in order; must be empty for uint8 that is not quantised."""
    layout: Layout
    dtype: DType = DType.FP32
    order: ChannelOrder = ChannelOrder.RGB
    crop: float = 0.875
    """Share of the resized image's short side that the centre crop keeps (the reference's `scale`, in percent
    there); of no effect where the whole image is stretched."""
    quantization: Quantization | None = None
    """Of the input; None where it takes the numbers that the steps make, or pixels as they are."""

    def __post_init__(self) -> None:
        """Reject recipes that contradict themselves."""
        if self.dtype.is_whole and self.steps and self.quantization is None:
            raise ValueError(f"{self.name}: arithmetic on {self.dtype} would wrap; leave `steps` empty")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one preprocessed sample, without the batch axis."""
        height, width = self.size_px
        return (height, width, 3) if self.layout == Layout.NHWC else (3, height, width)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    `shape` is without the batch axis: () is one number per sample, -1 (outputs only) any size.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    is_requested: bool = True
    """Outputs only: whether the harness asks for it. Others are declared so that clients can."""

    @property
    def numbers(self) -> int:
        """How many numbers one sample has."""
        return math.prod(self.shape)

    @property
    def is_scores(self) -> bool:
        """Of a classifier's output: whether it has a score for each class.

        Axes of 1 do not count; whole numbers, unless they are a quantised network's bytes, are no scores.
        """
        return len([side for side in self.shape if side != 1]) == 1 and self.dtype not in (
            DType.INT64,
            DType.INT32,
        )

    @property
    def is_class(self) -> bool:
        """Of a classifier's output: whether it names the class that won."""
        return self.numbers == 1 and self.dtype in (DType.INT64, DType.INT32)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return self.numbers * self.dtype.size_bytes

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Shape as clients see it; one number per sample has a last axis of 1 (see `model_config`)."""
        return (batch, *(self.shape or (1,)))


@dataclass(frozen=True)
class Weights:
    """A published file: where it is, how it is told from a damaged one, and what is in it."""

    filename: str
    """Name under which it is kept in the weights folder (the archive's, where it is one)."""
    urls: tuple[str, ...]
    """Tried in order."""
    checksum: str
    """`md5:…` or `sha256:…` of the downloaded file."""
    member: str = ""
    """Path of the wanted file inside the archive; empty where the download is the file itself."""
    size_bytes: int = 0
    """0 where the source publishes none."""


@dataclass(frozen=True)
class Detection:
    """How to read a detector's outputs; the first four name them."""

    boxes: str
    scores: str
    classes: str
    count: str = ""
    """One number per image: how many of the slots hold a detection. Empty where all do, or where slots
    without one have a score of 0."""
    box_order: BoxOrder = BoxOrder.YXYX
    class_offset: int = 0
    """Added to get the class that is logged, which is 1 or more."""
    is_contiguous: bool = False
    """Class k means the k-th category of the annotation file (1-80), instead of a COCO id (1-90)."""
    score_threshold: float = 0.0
    """Detections below are not logged, as in the MLPerf reference's post-processing."""
    nms: Nms = Nms.CORRECTED
    are_pixels: bool = False
    """Boxes are in pixels of the network's input, instead of shares of the image's height and width."""

    @property
    def numbering(self) -> Numbering:
        """What the class numbers of the answers mean."""
        return next(each for each in Numbering if self.numbered(each) == self)

    def numbered(self, numbering: Numbering) -> "Detection":
        """The same with another meaning of the class numbers."""
        return replace(
            self,
            class_offset=int(numbering in (Numbering.COCO_LESS_1, Numbering.FROM_0)),
            is_contiguous=numbering in (Numbering.FROM_1, Numbering.FROM_0),
        )

    @property
    def box_form(self) -> str:
        """What the numbers of the boxes are, as one of `BOX_FORMS`."""
        return f"{self.box_order}{PIXELS if self.are_pixels else ''}"

    def boxed(self, form: str) -> "Detection":
        """The same with boxes of another of the `BOX_FORMS`."""
        order = BoxOrder(form.removesuffix(PIXELS))
        return replace(self, box_order=order, are_pixels=form.endswith(PIXELS))


LARGEST_BATCH = 65536
"""Samples in one batch that may be asked for: beyond any that a device was seen to take."""
SAME_GRAPH = 1e-5
"""Tolerance where one framework runs the same graph twice: on some processors the order of its sums, and so
the last bits, depends on the size of the batch. Seen: 3.2e-6, seeded ssd-mobilenet in TensorFlow 2.21 on an
EPYC without AVX-512, where 2.8 % of the detections were more than 1e-6 apart."""


@dataclass(frozen=True)
class Variant:
    """A model as one framework serves it."""

    platform: Platform
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    max_batch_size: int
    """0 where the file's batch axis is fixed at 1: Triton then takes that axis for a part of the shape."""
    source: str
    """Which of the model's `sources` this variant is exported from."""
    tolerance: float
    """Largest absolute difference allowed between source and export: on floating-point outputs, or on the
    scores and the box corners of detections."""
    label_offset: int = 0
    """Classifiers: added to the arg-max to get the ImageNet label 0-999; -1 where class 0 is background."""
    detection: Detection | None = None
    """Detectors only."""
    nms_choices: tuple[Nms, ...] = ()
    """What `--nms` can choose from; empty where the published graph fixes it."""
    other_filename: str = ""
    """Of a user's file that is served as another kind than the platform's usual one."""

    def __post_init__(self) -> None:
        """Reject declarations that contradict themselves."""
        names = [tensor.name for tensor in (self.input, *self.outputs)]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.platform}: tensor names must differ: {names}")
        if self.input.shape != self.preprocess.shape or self.input.dtype != self.preprocess.dtype:
            raise ValueError(f"{self.platform}: input {self.input} is not what {self.preprocess.name} makes")
        if not any(tensor.is_requested for tensor in self.outputs):
            raise ValueError(f"{self.platform}: no output is requested")
        if self.detection:
            read = (self.detection.boxes, self.detection.scores, self.detection.classes, self.detection.count)
            if missing := [name for name in read if name and name not in names]:
                raise ValueError(f"{self.platform}: detections are read from {missing[0]!r}, no output")

    @property
    def batch_limit(self) -> int:
        """Most samples in one request, unless more are asked for."""
        return max(1, self.max_batch_size)

    @property
    def largest_batch(self) -> int:
        """Most samples that may be asked for: with a free batch axis as many as memory holds."""
        return LARGEST_BATCH if self.max_batch_size > 1 else self.batch_limit

    @property
    def model_filename(self) -> str:
        """File (or folder) inside the version folder."""
        return self.other_filename or self.platform.facts.model_filename

    @property
    def is_half(self) -> bool:
        """Whether what goes in or comes out is fp16, as then mostly is what happens in between."""
        return any(tensor.dtype == DType.FP16 for tensor in (self.input, *self.outputs))

    @property
    def requested_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs that the harness asks for, in the order that scoring expects."""
        return tuple(tensor for tensor in self.outputs if tensor.is_requested)


def on_openvino(variant: Variant) -> Variant:
    """ONNX Runtime's variant as OpenVINO serves it: the same file, so the same in everything else."""
    return replace(variant, platform=Platform.OPENVINO)


@dataclass(frozen=True)
class Target:
    """The accuracy that MLPerf asks for."""

    metric: str
    reference: float
    """Published accuracy of the FP32 reference, as a fraction."""
    factor: float
    """Share of the reference that a submission must reach."""
    origin: str

    @property
    def threshold(self) -> float:
        """Smallest accuracy that passes, as a fraction."""
        return self.reference * self.factor


@dataclass(frozen=True)
class ModelSpec:
    """One model of the benchmark."""

    name: str
    title: str
    task: Task
    target: Target
    rounds: tuple[str, ...]
    """MLPerf rounds (of those in `harness.run.mlperf.rounds`) in which this was a benchmark."""
    performance_sample_count: int
    """mlperf.conf; samples that fit in memory and that performance runs draw from."""
    quick_sample_count: int
    """Samples of a --quick run: some seconds on two cores."""
    server_target_latency_ms: int
    multi_stream_samples_per_query: int
    sources: Mapping[str, Weights]
    """Published weights by source name; the same names select the seeded architecture."""
    variants: Mapping[Platform, Variant]
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject declarations that contradict themselves."""
        for platform, variant in self.variants.items():
            if platform != variant.platform:
                raise ValueError(f"{self.name}: variant of {variant.platform} filed under {platform}")
            if (variant.detection is not None) != (self.task == Task.DETECTION):
                raise ValueError(f"{self.name}: {platform} does not say how its answers are read")
            if variant.source not in self.sources:
                raise ValueError(f"{self.name}: {platform} wants source {variant.source!r}, unknown")

    def entry_name(self, platform: Platform) -> str:
        """Folder name in the model repository, and the model's name in Triton."""
        return f"{self.name}_{platform}"

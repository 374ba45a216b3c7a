"""Whether a quantised input can hold what a recipe makes, by files that are none but for their input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.conversion import own_files, own_inputs
from converters.formats.graph import Array, Graph
from harness.errors import ConversionError
from harness.models import MODELS
from harness.models.platforms import Platform
from harness.models.recipes import COCO_300, IMAGENET_MOBILENET, fit
from harness.models.spec import DType, Preprocess, Quantization, TensorSpec, Variant

MOBILENET = MODELS["mobilenet"].variants[Platform.TFLITE]
RESNET = MODELS["resnet50"].variants[Platform.TFLITE]
DETECTOR = MODELS["ssd-mobilenet"].variants[Platform.TFLITE]
DETECTIONS = tuple(
    TensorSpec(name, DType.FP32, shape)
    for name, shape in (("boxes", (7, 4)), ("scores", (7,)), ("classes", (7,)))
)


def quantised(scale: float, zero_point: int, base: Variant) -> Graph:
    """A file of a base model's task, whose input is quantised so; a point below 0 is of signed bytes."""
    dtype = DType.INT8 if zero_point < 0 else DType.UINT8
    outputs = DETECTIONS if base.detection else (TensorSpec("scores", DType.FP32, (12,)),)

    def run(batch: Array) -> list[Array]:
        return [np.ones((len(batch), *output.shape), np.float32) for output in outputs]

    size = TensorSpec("image", dtype, (20, 30, 3))
    return Graph(Path("own.tflite"), size, outputs, 0, run, quantization=Quantization(scale, zero_point))


def taken(graph: Graph, base: Variant, text: str = "") -> Preprocess:
    """What an export gets after its file was let pass."""
    said = own_files.Said(text)
    own_files.check_task(graph, base, said)
    return own_files.variant_of(graph, base, said).preprocess


@pytest.mark.parametrize(
    ("base", "scale", "zero_point", "message"),
    [
        (
            *(MOBILENET, 1 / 255, 0),
            "its input holds 0 to 1, and the recipe imagenet_mobilenet makes -1 to 1: say --preprocess "
            "imagenet_mobilenet,scale=1/255,mean=0,std=1, which makes 0 to 1, if it was trained so, or "
            "--preprocess imagenet_mobilenet to keep it",
        ),
        (MOBILENET, 1.0, -128, "holds 0 to 255, .* makes -1 to 1: .* imagenet_mobilenet,scale=1,mean=0,std"),
        (RESNET, 1.0, 0, "holds 0 to 255, .* imagenet makes -124 to 151: say .* imagenet,scale=1,mean=0"),
        (RESNET, 1.1326, 17, "holds -19.3 to 270, .* makes -124 to 151: say .* imagenet,scale=1,mean=0"),
        # Nothing is cut off, but all that is made comes to two or three of its steps.
        (MOBILENET, 1.0, -1, "holds -127 to 128, and the recipe imagenet_mobilenet makes -1 to 1"),
        (RESNET, 1 / 128, 128, "holds -1 to 0.992, .*: say --preprocess imagenet_mobilenet, which makes -1"),
        (RESNET, 1e-6, 0, "makes -124 to 151: say --preprocess scale=…,mean=…,std=…, as it was trained, or "),
        (DETECTOR, 1 / 255, 0, "0 to 1, .* coco-300-pt makes -1 to 1: say .* coco-300-pt,scale=1/255,mean=0"),
    ],
)
def test_a_range_that_contradicts_the_models_recipe_is_asked_about(
    base: Variant, scale: float, zero_point: int, message: str
) -> None:
    with pytest.raises(ConversionError, match=f"^own.tflite: .*{message}"):
        own_files.check_task(quantised(scale, zero_point, base), base)


@pytest.mark.parametrize(
    ("base", "scale", "zero_point"),
    [
        # As published ones of other sizes are, which get the pixels that they were trained with.
        (MOBILENET, 1 / 128, 128),
        (DETECTOR, 1 / 128, 128),
        # Calibration leaves the last few values out.
        (MOBILENET, 0.0075, 128),
        # Three times what is needed.
        (MOBILENET, 0.0235, 128),
        (RESNET, 1.25, -10),
    ],
)
def test_a_range_that_holds_what_the_recipe_makes_is_used(
    base: Variant, scale: float, zero_point: int
) -> None:
    recipe = taken(quantised(scale, zero_point, base), base)
    assert recipe.name == base.preprocess.name
    assert own_inputs.clipping(recipe) == ""


def test_a_detectors_input_that_holds_pixels_gets_them() -> None:
    recipe = taken(quantised(1.0, 0, DETECTOR), DETECTOR)
    assert recipe == fit(COCO_300, size_px=(20, 30))
    signed = taken(quantised(1.0, -128, DETECTOR), DETECTOR)
    assert (signed.name, signed.steps, signed.quantization) == (COCO_300.name, (), Quantization(1.0, -128))


def test_what_the_user_says_is_taken_and_what_is_cut_off_is_said() -> None:
    graph = quantised(1 / 255, 0, MOBILENET)
    pixels = taken(graph, MOBILENET, "scale=1/255")
    assert (pixels.dtype, pixels.steps, pixels.quantization) == (DType.UINT8, (), None)
    assert own_inputs.clipping(pixels) == ""
    kept = taken(graph, MOBILENET, IMAGENET_MOBILENET.name)
    assert kept == replace(
        IMAGENET_MOBILENET, size_px=(20, 30), dtype=DType.UINT8, quantization=Quantization(1 / 255, 0)
    )
    assert own_inputs.clipping(kept) == (
        "its input holds 0 to 1, and the recipe imagenet_mobilenet makes -1 to 1: "
        "50% of all pixel values are cut off"
    )

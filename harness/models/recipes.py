"""Preprocessing recipes of the MLPerf reference, by the names of its `--dataset` choices.

Arithmetic: mlcommons/inference, vision/classification_and_detection/python/dataset.py
(pre_process_vgg, pre_process_mobilenet, pre_process_imagenet_pytorch, pre_process_coco_mobilenet,
pre_process_coco_resnet34 and its twins for each framework).
"""

from dataclasses import replace

from harness.models.spec import DType, Layout, Preprocess, Quantization, Resize, Step, Task

IMAGENET = Preprocess(
    name="imagenet",
    resize=Resize.ASPECT_AREA,
    size_px=(224, 224),
    steps=(Step("subtract", (123.68, 116.78, 103.94)),),
    layout=Layout.NHWC,
)
IMAGENET_MOBILENET = Preprocess(
    name="imagenet_mobilenet",
    resize=Resize.ASPECT_LINEAR,
    size_px=(224, 224),
    steps=(Step("divide", (255.0,)), Step("subtract", (0.5,)), Step("multiply", (2.0,))),
    layout=Layout.NHWC,
)
IMAGENET_PYTORCH = Preprocess(
    name="imagenet_pytorch",
    resize=Resize.ASPECT_PILLOW_BILINEAR,
    size_px=(224, 224),
    steps=(
        Step("divide", (255.0,)),
        Step("subtract", (0.485, 0.456, 0.406)),
        Step("divide", (0.229, 0.224, 0.225)),
    ),
    layout=Layout.NCHW,
)
COCO_300 = Preprocess(
    name="coco-300",
    resize=Resize.STRETCH_LINEAR,
    size_px=(300, 300),
    steps=(),
    layout=Layout.NHWC,
    dtype=DType.UINT8,
)
COCO_300_PT = Preprocess(
    name="coco-300-pt",
    resize=Resize.STRETCH_LINEAR,
    size_px=(300, 300),
    steps=(Step("subtract", (127.5,)), Step("divide", (127.5,))),
    layout=Layout.NCHW,
)
COCO_1200 = Preprocess(
    name="coco-1200",
    resize=Resize.STRETCH_LINEAR,
    size_px=(1200, 1200),
    steps=IMAGENET_PYTORCH.steps,
    layout=Layout.NCHW,
)
# The reference has a name for each framework; the arithmetic is the same.
COCO_1200_ONNX = replace(COCO_1200, name="coco-1200-onnx")
COCO_1200_PT = replace(COCO_1200, name="coco-1200-pt")
COCO_1200_TF = replace(COCO_1200, name="coco-1200-tf")

RECIPES = {
    recipe.name: recipe
    for recipe in (
        *(IMAGENET, IMAGENET_MOBILENET, IMAGENET_PYTORCH),
        *(COCO_300, COCO_300_PT, COCO_1200, COCO_1200_ONNX, COCO_1200_PT, COCO_1200_TF),
    )
}


def has_same_arithmetic(one: Preprocess, other: Preprocess) -> bool:
    """Whether two recipes make the same pixels, whatever they are called and however these are laid out."""
    return replace(one, name="", layout=Layout.NHWC) == replace(other, name="", layout=Layout.NHWC)


def is_for(task: Task, recipe: Preprocess) -> bool:
    """Whether a recipe keeps what a task needs: a crop would move a detector's boxes."""
    if recipe.name not in RECIPES and task != Task.DETECTION:
        # Spelled out by a user, who may stretch what is to be classified.
        return True
    return (recipe.resize == Resize.STRETCH_LINEAR) == (task == Task.DETECTION)


def fit(
    recipe: Preprocess,
    *,
    layout: Layout | None = None,
    size_px: tuple[int, int] | None = None,
    dtype: DType | None = None,
    quantization: Quantization | None = None,
) -> Preprocess:
    """Change a recipe to a file's own layout, size or dtype; bytes that are not quantised are pixels."""
    dtype = dtype or recipe.dtype
    is_arithmetic = quantization is not None or not dtype.is_whole
    return replace(
        recipe,
        layout=layout or recipe.layout,
        size_px=size_px or recipe.size_px,
        dtype=dtype,
        steps=recipe.steps if is_arithmetic else (),
        quantization=quantization,
    )

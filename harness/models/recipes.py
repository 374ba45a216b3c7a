"""Preprocessing recipes of the MLPerf reference, by the names of its `--dataset` choices.

Arithmetic: mlcommons/inference, vision/classification_and_detection/python/dataset.py
(pre_process_vgg, pre_process_mobilenet, pre_process_imagenet_pytorch).
"""

from dataclasses import replace

from harness.models.spec import DType, Layout, Preprocess, Resize, Step

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

RECIPES = {recipe.name: recipe for recipe in (IMAGENET, IMAGENET_MOBILENET, IMAGENET_PYTORCH)}


def fit(
    recipe: Preprocess,
    *,
    layout: Layout | None = None,
    size_px: tuple[int, int] | None = None,
    dtype: DType | None = None,
) -> Preprocess:
    """Change a recipe to a file's own layout, size or dtype; a uint8 input takes the pixels as they are."""
    dtype = dtype or recipe.dtype
    return replace(
        recipe,
        layout=layout or recipe.layout,
        size_px=size_px or recipe.size_px,
        dtype=dtype,
        steps=() if dtype == DType.UINT8 else recipe.steps,
    )

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.models.own_recipes import describe, parse
from harness.models.recipes import IMAGENET, IMAGENET_MOBILENET, RECIPES, has_same_arithmetic
from harness.models.spec import ChannelOrder, DType, Resize, Step, Task

CLASSIFICATION = Task.CLASSIFICATION


def test_a_name_is_that_recipe():
    assert all(parse(name, CLASSIFICATION) == recipe for name, recipe in RECIPES.items())


def test_nothing_but_a_size_takes_pixels_as_they_are():
    recipe = parse("size=192x256", CLASSIFICATION)
    assert (recipe.size_px, recipe.steps, recipe.dtype) == ((192, 256), (), DType.FP32)
    assert recipe.resize == Resize.ASPECT_LINEAR
    assert parse("order=BGR", Task.DETECTION).resize == Resize.STRETCH_LINEAR


def test_scale_comes_before_mean_and_mean_before_std_whatever_the_order_of_words():
    recipe = parse("std=0.2,0.3,0.4, mean=0.5 ,scale=1/255", CLASSIFICATION)
    assert recipe.steps == (
        Step("divide", (255.0,)),
        Step("subtract", (0.5,)),
        Step("divide", (0.2, 0.3, 0.4)),
    )


def test_a_name_in_front_is_changed_in_what_is_said():
    recipe = parse("imagenet,order=BGR,crop=1", CLASSIFICATION)
    assert recipe.steps == (Step("subtract", (103.94, 116.78, 123.68)),)
    assert (recipe.order, recipe.crop, recipe.resize) == (ChannelOrder.BGR, 1.0, IMAGENET.resize)


@pytest.mark.parametrize("text", ["mean=0.485,0.456,0.406", "std=0.229,0.224,0.225", "scale=1/255"])
def test_of_the_arithmetic_too_what_is_not_said_stays_the_names(text):
    named = RECIPES["imagenet_pytorch"]
    found = parse(f"imagenet_pytorch,{text}", Task.CLASSIFICATION)
    assert found.steps == named.steps
    changed = parse("imagenet_mobilenet,mean=0.25", Task.CLASSIFICATION)
    (scale, _, factor) = RECIPES["imagenet_mobilenet"].steps
    assert changed.steps == (scale, Step("subtract", (0.25,)), factor)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != IMAGENET_MOBILENET.name])
def test_a_recipe_written_out_is_read_as_the_same(name):
    recipe = RECIPES[name]
    text = describe(recipe).removesuffix(f",as {recipe.dtype}")
    task = Task.DETECTION if recipe.resize == Resize.STRETCH_LINEAR else CLASSIFICATION
    again = parse(text, task)
    assert recipe.dtype == DType.UINT8 or has_same_arithmetic(again, recipe)
    assert (again.resize, again.size_px, again.layout) == (recipe.resize, recipe.size_px, recipe.layout)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", "'imagnet' is neither a recipe"),
        ("scale", "'scale' is neither a recipe"),
        ("size=224,colour=BGR", "unknown key 'colour'"),
        ("mean=1,2", "mean takes one number or three, not 2"),
        ("scale=1/0", "scale cannot be 0"),
        ("scale=0", "scale cannot be 0"),
        ("std=1,0,1", "std cannot be 0"),
        ("mean=x", "mean is a number"),
        ("crop=1.5", "crop is the share"),
        ("resize=stretch,crop=0.9", "leave crop out"),
        ("order=RBG", "'RBG' is none of RGB, BGR"),
        ("size=0", "size is 224, or height x width"),
        ("size=1,size=2", "size is given twice"),
        ("size=1,2", "size takes one value"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text, CLASSIFICATION)


@given(st.text(alphabet="sizecroplambnd=,/.0123456789xRGB ", max_size=30))
def test_any_text_is_a_recipe_or_a_line(text):
    try:
        recipe = parse(text, CLASSIFICATION)
    except ConfigError:
        return
    assert parse(describe(recipe), CLASSIFICATION).steps == recipe.steps or recipe.steps

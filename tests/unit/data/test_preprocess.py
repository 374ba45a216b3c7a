"""Preprocessing against the reference's arithmetic, written down a second time from its description."""

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data import preprocess
from harness.errors import DatasetError
from harness.models import own_recipes
from harness.models.recipes import (
    COCO_1200,
    IMAGENET,
    IMAGENET_MOBILENET,
    IMAGENET_PYTORCH,
    RECIPES,
    fit,
    has_same_arithmetic,
)
from harness.models.spec import ChannelOrder, DType, Layout, Quantization, Task
from tests.real_data import PHOTOGRAPHS, needs_real_data

SIZES = [
    (375, 500), (500, 375), (480, 333), (256, 256), (400, 400), (333, 499), (257, 255), (600, 800),
    (37, 53), (53, 37), (1, 1), (3, 200), (231, 175), (255, 256), (1024, 300), (702, 500), (500, 702),
]  # fmt: skip


def drawn(height, width):
    """A picture of whole-number arithmetic, with edges and smooth parts, of any size."""
    y, x = np.mgrid[:height, :width]
    blue = (x * 255) // max(width - 1, 1)
    green = (y * 7 + x * 3) % 256
    red = ((x // 5 + y // 9) % 2) * 180 + (x * y) % 70
    return np.stack([blue, green, red], axis=2).astype(np.uint8)


def short_side_256(rgb, how):
    """Aspect resize to a short side of 256 by the integer form of the sizes in the reference."""
    height, width = rgb.shape[:2]
    target = (256, 256 * height // width) if height > width else (256 * width // height, 256)
    if how == "pillow":
        return Image.fromarray(rgb).resize(target, Image.BILINEAR)
    return cv2.resize(rgb, target, interpolation={"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}[how])


def vgg(bgr):
    """`imagenet`: INTER_AREA, crop, subtract the means, red first."""
    rgb = short_side_256(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), "area")
    rows, columns = rgb.shape[:2]
    left, top = (columns - 224) // 2, (rows - 224) // 2
    picture = rgb[top : top + 224, left : left + 224].astype("float32")
    for channel, mean in enumerate([123.68, 116.78, 103.94]):
        picture[:, :, channel] -= np.float32(mean)
    return picture


def mobilenet(bgr):
    """`imagenet_mobilenet`: INTER_LINEAR, crop, to -1...1 in three float32 steps, here byte by byte."""
    one = [(np.float32(v) / np.float32(255) - np.float32(0.5)) * np.float32(2) for v in range(256)]
    rgb = short_side_256(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), "linear")
    left, right = int((rgb.shape[1] - 224) / 2), int((rgb.shape[1] + 224) / 2)
    top, bottom = int((rgb.shape[0] - 224) / 2), int((rgb.shape[0] + 224) / 2)
    return np.array(one, np.float32)[rgb[top:bottom, left:right]]


def torchvision(bgr):
    """`imagenet_pytorch`: Pillow's bilinear, centre crop rounding half to even, mean and deviation."""
    picture = short_side_256(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), "pillow")
    left = int(np.round((picture.width - 224) / 2.0))
    top = int(np.round((picture.height - 224) / 2.0))
    scaled = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32) / np.float32(255)
    planes = [
        (scaled[:, :, channel] - np.float32(mean)) / np.float32(deviation)
        for channel, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)])
    ]
    return np.dstack(planes)


def stretched(bgr, side):
    """Both COCO recipes: red first, the whole picture to a square, INTER_LINEAR in float32."""
    rgb = cv2.cvtColor(bgr.astype(np.float32), cv2.COLOR_BGR2RGB)
    return cv2.resize(rgb, (side, side), interpolation=cv2.INTER_LINEAR)


def coco_300(bgr):
    """`coco-300`: the fraction is cut off, not rounded."""
    return np.floor(stretched(bgr, 300)).astype(np.uint8)


def coco_300_pt(bgr):
    """`coco-300-pt`: to -1...1 in two float32 steps, without a rounding to bytes."""
    return (stretched(bgr, 300) - np.float32(127.5)) / np.float32(127.5)


def coco_1200(bgr):
    """`coco-1200` and its twins: divide, subtract, divide; one float32 step each."""
    picture = stretched(bgr, 1200) / np.float32(255)
    for channel, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        picture[:, :, channel] = (picture[:, :, channel] - np.float32(mean)) / np.float32(deviation)
    return picture


BY_THE_BOOK = {
    "imagenet": vgg,
    "imagenet_mobilenet": mobilenet,
    "imagenet_pytorch": torchvision,
    "coco-300": coco_300,
    "coco-300-pt": coco_300_pt,
    "coco-1200": coco_1200,
}


def test_every_recipe_is_checked_here_under_its_own_name_or_a_twins():
    for name, recipe in RECIPES.items():
        assert name in BY_THE_BOOK or has_same_arithmetic(recipe, COCO_1200), name


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", BY_THE_BOOK)
def test_every_recipe_is_bit_equal_to_the_reference_in_both_layouts(name, size):
    image = drawn(*size)
    expected = BY_THE_BOOK[name](image)
    for layout, wanted in ((Layout.NHWC, expected), (Layout.NCHW, expected.transpose(2, 0, 1))):
        got = preprocess.apply(image, fit(RECIPES[name], layout=layout))
        assert got.dtype == expected.dtype
        assert got.flags.c_contiguous
        assert np.array_equal(got, wanted)


@needs_real_data
@pytest.mark.parametrize("name", BY_THE_BOOK)
def test_real_photographs_are_bit_equal_to_the_reference(name):
    photos = sorted(PHOTOGRAPHS.glob("*.JPEG"))[::5]
    assert len(photos) == 40
    for photo in photos:
        expected = BY_THE_BOOK[name](cv2.imread(str(photo)))
        assert np.array_equal(preprocess.load(photo, fit(RECIPES[name], layout=Layout.NHWC)), expected), photo


# SHA-256 of what the functions above (not the code under test) made of drawn(375, 500), OpenCV 4.11.0.
STORED = {
    "imagenet": "f1905b2a133d9700a3b605afd3abee4ee41175fe2a3803544a468a74e67274fb",
    "imagenet_mobilenet": "1068055e5509a3335ba7ad8aaad339db56243ba59f38c49ded67cf3a4563498f",
    "imagenet_pytorch": "fcc58f1acd226983ea054f33980241c1059401ead5d84bf3481c5b4bb32b4341",
}


@pytest.mark.parametrize("name", STORED)
def test_the_stored_digest_of_an_array_still_holds(name):
    array = preprocess.apply(drawn(375, 500), fit(RECIPES[name], layout=Layout.NHWC))
    assert hashlib.sha256(array.tobytes()).hexdigest() == STORED[name]


def test_a_white_and_a_black_image_give_the_recipes_extremes():
    white, black = np.full((300, 300, 3), 255, np.uint8), np.zeros((300, 300, 3), np.uint8)
    assert preprocess.apply(white, IMAGENET_MOBILENET).max() == 1.0
    assert preprocess.apply(black, IMAGENET_MOBILENET).min() == -1.0
    assert preprocess.apply(black, IMAGENET)[0, 0].tolist() == pytest.approx([-123.68, -116.78, -103.94])
    assert preprocess.apply(white, IMAGENET_PYTORCH)[:, 0, 0].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    )


def test_red_comes_first():
    red_in_bgr = np.zeros((300, 300, 3), np.uint8)
    red_in_bgr[..., 2] = 255
    assert preprocess.apply(red_in_bgr, IMAGENET_MOBILENET)[100, 100].tolist() == [1.0, -1.0, -1.0]


@pytest.mark.parametrize("name", ["imagenet", "imagenet_mobilenet", "imagenet_pytorch"])
@pytest.mark.parametrize("layout", Layout)
def test_a_uint8_input_gets_the_cropped_pixels_as_they_are(name, layout):
    recipe = fit(RECIPES[name], layout=layout, dtype=DType.UINT8)
    got = preprocess.apply(drawn(480, 333), recipe)
    only_cast = preprocess.apply(drawn(480, 333), replace(recipe, dtype=DType.FP32))
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert got.shape == recipe.shape
    assert np.array_equal(got, only_cast)
    assert got.std() > 40


# Short side before the crop: floor(100 x 192 / 87.5) = 219, floor(100 x 299 / 87.5) = 341.
@pytest.mark.parametrize(("size_px", "short_px"), [(192, 219), (299, 341), (160, 182), (224, 256)])
def test_another_input_size_scales_the_short_side_with_it(size_px, short_px):
    image = drawn(375, 500)
    recipe = fit(IMAGENET_MOBILENET, size_px=(size_px, size_px), dtype=DType.UINT8)
    resized = cv2.resize(image, (short_px * 500 // 375, short_px), interpolation=cv2.INTER_LINEAR)
    top, left = (short_px - size_px) // 2, (short_px * 500 // 375 - size_px) // 2
    expected = cv2.cvtColor(resized[top : top + size_px, left : left + size_px], cv2.COLOR_BGR2RGB)
    assert np.array_equal(preprocess.apply(image, recipe), expected)


def test_decoding_is_opencvs_imread(tmp_path):
    image = drawn(120, 90)
    for name in ("colour.jpg", "colour.png"):
        cv2.imwrite(str(tmp_path / name), image)
    cv2.imwrite(str(tmp_path / "grey.jpg"), image[..., 0])
    Image.fromarray(image).convert("CMYK").save(tmp_path / "cmyk.jpg")
    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: turn right by 90 degrees
    Image.fromarray(image).save(tmp_path / "rotated.jpg", exif=rotated)
    for file in tmp_path.iterdir():
        decoded = preprocess.decode(file)
        assert decoded.shape == ((90, 120, 3) if file.name == "rotated.jpg" else (120, 90, 3))
        assert np.array_equal(decoded, cv2.imread(str(file)))


def test_a_greyscale_jpeg_has_three_equal_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.jpg"), drawn(300, 300)[..., 1])
    red, green, blue = preprocess.load(tmp_path / "grey.jpg", fit(IMAGENET_MOBILENET, layout=Layout.NCHW))
    assert np.array_equal(red, green)
    assert np.array_equal(green, blue)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes"), (b"not an image", "not an image"), (b"\xff\xd8\xff" + bytes(50), "not an image")],
)
def test_what_is_no_image_is_named(tmp_path, content, reason):
    file = tmp_path / "broken.JPEG"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"broken\.JPEG: .*{reason}"):
        preprocess.load(file, IMAGENET)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.JPEG: No such file"):
        preprocess.load(tmp_path / "gone.JPEG", IMAGENET)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.98])
def test_a_file_that_is_cut_off_is_refused_though_opencv_fills_it_with_grey(tmp_path, suffix, kept):
    _, encoded = cv2.imencode(suffix, drawn(300, 400))
    file = tmp_path / f"half{suffix}"
    file.write_bytes(encoded.tobytes()[: int(len(encoded) * kept)])
    with pytest.raises(DatasetError, match="cut off"):
        preprocess.decode(file)


def test_a_cut_off_jpeg_with_a_whole_thumbnail_is_refused(tmp_path):
    thumbnail = cv2.imencode(".jpg", drawn(40, 40))[1].tobytes()
    picture = cv2.imencode(".jpg", drawn(300, 400))[1].tobytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    file = tmp_path / "half.jpg"
    file.write_bytes(picture[:2] + segment + picture[2:-2000])
    with pytest.raises(DatasetError, match="cut off"):
        preprocess.decode(file)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "optimize": True}])
@pytest.mark.parametrize(("lacking", "is_whole"), [(2, True), (40, False), (900, False)])
def test_a_jpeg_may_lack_its_end_marker_but_no_pixel(tmp_path, options, lacking, is_whole):
    Image.fromarray(drawn(200, 300)).save(tmp_path / "whole.jpg", **options)
    (tmp_path / "short.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-lacking])
    if is_whole:
        expected = preprocess.decode(tmp_path / "whole.jpg")
        assert np.array_equal(preprocess.decode(tmp_path / "short.jpg"), expected)
    else:
        with pytest.raises(DatasetError, match="cut off"):
            preprocess.decode(tmp_path / "short.jpg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_may_lack_the_last_byte_of_its_end_marker(tmp_path, options):
    Image.fromarray(drawn(200, 300)).save(tmp_path / "whole.jpg", **options)
    short = tmp_path / "short.jpg"
    short.write_bytes((tmp_path / "whole.jpg").read_bytes()[:-1])
    assert np.array_equal(preprocess.decode(short), cv2.imread(str(short)))
    assert np.array_equal(preprocess.decode(short), preprocess.decode(tmp_path / "whole.jpg"))


def test_a_tiff_of_real_numbers_which_only_opencv_knows_is_accepted_if_it_is_whole(tmp_path):
    cv2.imwrite(str(tmp_path / "real.tiff"), drawn(40, 30).astype(np.float32))
    assert np.array_equal(preprocess.decode(tmp_path / "real.tiff"), cv2.imread(str(tmp_path / "real.tiff")))
    content = (tmp_path / "real.tiff").read_bytes()
    (tmp_path / "short.tiff").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DatasetError, match="short"):
        preprocess.decode(tmp_path / "short.tiff")


@pytest.mark.parametrize("suffix", ["bmp", "webp", "tiff", "ppm", "jp2"])
def test_what_else_opencv_reads_is_accepted_if_it_is_whole(tmp_path, suffix):
    Image.fromarray(drawn(40, 30)).save(tmp_path / f"image.{suffix}", lossless=True)
    expected = cv2.imread(str(tmp_path / f"image.{suffix}"))
    assert np.array_equal(preprocess.decode(tmp_path / f"image.{suffix}"), expected)
    content = (tmp_path / f"image.{suffix}").read_bytes()
    (tmp_path / f"short.{suffix}").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DatasetError, match="short"):
        preprocess.decode(tmp_path / f"short.{suffix}")


@pytest.mark.parametrize("appended", [bytes(900), b"\xff\xda and something else", b"\r\n"])
def test_bytes_after_a_good_image_do_no_harm(tmp_path, appended):
    good = cv2.imencode(".jpg", drawn(300, 400))[1].tobytes()
    (tmp_path / "good.jpg").write_bytes(good)
    (tmp_path / "longer.jpg").write_bytes(good + appended)
    expected = preprocess.decode(tmp_path / "good.jpg")
    assert np.array_equal(preprocess.decode(tmp_path / "longer.jpg"), expected)


def test_a_progressive_jpeg_is_accepted(tmp_path):
    Image.fromarray(drawn(200, 300)).save(tmp_path / "progressive.jpg", progressive=True)
    assert preprocess.decode(tmp_path / "progressive.jpg").shape == (200, 300, 3)


def test_anything_but_a_colour_image_of_bytes_is_our_own_mistake():
    with pytest.raises(ValueError, match="uint8 wanted"):
        preprocess.apply(np.zeros((10, 10), np.uint8), IMAGENET)
    with pytest.raises(ValueError, match="uint8 wanted"):
        preprocess.apply(np.zeros((10, 10, 3), np.float32), IMAGENET)


def test_the_decoder_says_which_libraries_made_the_pixels():
    assert cv2.__version__ in preprocess.decoder_version()
    assert "jpeg" in preprocess.decoder_version()


def test_a_quantised_input_stores_what_the_recipe_makes():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    own = replace(IMAGENET_MOBILENET, size_px=(16, 16), crop=1.0)
    real = preprocess.apply(pixels, own)
    stored = preprocess.apply(pixels, fit(own, dtype=DType.INT8, quantization=Quantization(0.01, -20)))
    expected = np.rint(real / np.float32(0.01)) - 20
    assert stored.dtype == np.int8
    assert np.array_equal(stored, expected.clip(-128, 127))


def test_channels_come_in_the_order_that_is_asked_for():
    pixels = drawn(32, 32)
    rgb = preprocess.apply(pixels, replace(IMAGENET, steps=()))
    bgr = preprocess.apply(pixels, replace(IMAGENET, steps=(), order=ChannelOrder.BGR))
    assert np.array_equal(bgr, rgb[..., ::-1])


def test_without_a_crop_the_whole_short_side_is_kept():
    pixels = drawn(224, 224)
    whole = preprocess.apply(pixels, replace(IMAGENET, steps=(), crop=1.0, order=ChannelOrder.BGR))
    assert np.array_equal(whole, pixels)


@pytest.mark.parametrize("image_px", [(300, 300), (300, 600), (600, 300), (480, 640)])
def test_an_input_that_is_no_square_shows_images_in_their_own_proportions(image_px):
    height, width = image_px
    # Brightness is the place, across in one channel and down in another.
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 200, width)[None, :]
    image[..., 1] = np.linspace(0, 200, height)[:, None]
    recipe = own_recipes.parse("resize=area,size=128x256,crop=0.875", Task.CLASSIFICATION)
    shown = preprocess.apply(image, recipe).astype(float)
    across = (shown[:, -1, 2] - shown[:, 0, 2]).mean() / 200 * width
    down = (shown[-1, :, 1] - shown[0, :, 1]).mean() / 200 * height
    assert across / down == pytest.approx(2, rel=0.05)
    # Of the side that decides, what the crop keeps.
    assert max(across / width, down / height) == pytest.approx(0.875, abs=0.02)

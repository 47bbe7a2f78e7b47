"""Pictures that are not square: cropped, padded or stretched."""

import io

import numpy as np
import pytest
from PIL import Image

from worker.cleaning.denoise import MedianFilter, NonLocalMeans
from worker.media.sources.squares import Pixels, Squares, describe_sizes

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def striped(mode: str = "RGB") -> Image.Image:
    """Ninety pixels wide, thirty high: a third red, a third green, a third blue."""
    image = Image.new("RGB", (90, 30), GREEN)
    image.paste(RED, (0, 0, 30, 30))
    image.paste(BLUE, (60, 0, 90, 30))
    return image.convert(mode)


def reopened(image: Image.Image, form: str, **options: object) -> Image.Image:
    target = io.BytesIO()
    image.save(target, form, **options)
    return Image.open(target)


def to_square(image: Image.Image, size: int, mode: str, fit: str) -> Pixels:
    squares = Squares(size, mode, fit)
    return squares.padded(squares.of_image(image))


def colours(pixels: np.ndarray, row: int) -> list[tuple[int, ...]]:
    """The colours at three places of a row: left, middle, right."""
    return [tuple(int(v) for v in pixels[row, column]) for column in (3, 15, 26)]


@pytest.mark.parametrize(
    ("fit", "middle", "top"),
    [
        ("crop", [GREEN] * 3, [GREEN] * 3),
        ("pad", [RED, GREEN, BLUE], [WHITE] * 3),
        ("stretch", [RED, GREEN, BLUE], [RED, GREEN, BLUE]),
    ],
)
def test_what_is_kept_of_a_wide_picture(fit, middle, top):
    pixels = to_square(striped(), 30, "RGB", fit)
    assert pixels.shape == (30, 30, 3)
    assert (colours(pixels, 15), colours(pixels, 2)) == (middle, top)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "image",
    [
        reopened(striped("CMYK"), "JPEG"),
        reopened(striped("P"), "GIF", transparency=0),
        reopened(striped("RGBA"), "WEBP"),
        reopened(striped("1"), "PNG"),
        Image.fromarray(np.full((20, 70), 0x8123, np.uint16)),
        striped("LA"),
        Image.new("RGB", (4000, 4), "red"),
        Image.new("RGB", (4, 3000), "red"),
    ],
    ids=["cmyk", "gif", "webp", "bits", "deep", "grey-alpha", "flat", "thin"],
)
def test_every_kind_of_picture_fits(image, mode, fit):
    pixels = to_square(image.copy(), 16, mode, fit)
    assert pixels.shape == (16, 16, 1 if mode == "L" else 3)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_picture_is_turned_as_its_camera_says_before_it_is_fitted(fit):
    exif = Image.Exif()
    exif[0x0112] = 6  # its first row is at the right
    turned = to_square(reopened(striped(), "JPEG", exif=exif, quality=95), 30, "RGB", fit)
    upright = to_square(striped().transpose(Image.Transpose.ROTATE_270), 30, "RGB", fit)
    assert np.abs(turned.astype(int) - upright).mean() < 3


def test_a_square_picture_is_the_same_however_it_is_fitted():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    cropped, padded, stretched = (
        to_square(image, 16, "RGB", f) for f in ("crop", "pad", "stretch")
    )
    assert (cropped == stretched).all()
    assert (cropped == padded).all()


def test_pictures_are_counted_and_the_step_says_how_they_were_fitted():
    squares = Squares(8, "RGB", "pad")
    squares.of_image(striped())
    squares.of_array(np.zeros((8, 8, 3), np.uint8))
    [report] = squares.reports()
    assert report.to_json() == {
        "name": "fit",
        "parameters": {"fit": "pad", "colour": "white"},
        "in": 2,
        "out": 2,
        "rejects": {},
        "found": {"not square": 1},
    }


def test_the_default_says_nothing_of_pictures_that_are_all_square():
    squares = Squares(8, "L")
    squares.of_array(np.zeros((8, 8), np.uint8))
    assert squares.reports() == []


def test_sizes_are_told_from_the_smallest_to_the_largest():
    assert describe_sizes([(4, 3), (90, 30)], 8, "L") == "of 4x3 to 90x30 pixels, made 8x8 L"
    assert describe_sizes([(4, 3), (4, 3)], 8, "L") == "of 4x3 pixels, made 8x8 L"


@pytest.mark.parametrize("clean", [MedianFilter(), NonLocalMeans()], ids=lambda step: step.name)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_to_be_padded_can_be_cleaned_however_thin_it_is(clean, mode):
    squares = Squares(16, mode, "pad")
    thin = clean(squares.of_image(Image.new("RGB", (4000, 4), "red")))
    assert thin.shape[:2] == (1, 16)
    assert squares.padded(thin).shape[:2] == (16, 16)

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from worker.marks.watermarks.dither import agreement
from worker.marks.watermarks.pictures import (
    ORDERS,
    STEP,
    TILES,
    _all_places,
    _dither,
    _tiled,
    detect,
    detect_cropped,
    detect_unchanged,
    embed,
    luminance,
    waves,
)

SECRET, OTHER = b"a secret of a tenant", b"that of another"
SURE = 1e-6
BOX, BILINEAR, BICUBIC, LANCZOS = (
    getattr(Image.Resampling, name) for name in ("BOX", "BILINEAR", "BICUBIC", "LANCZOS")
)


def landscapes(count, side=64, channels=3, seed=0):
    """Pictures whose frequencies fall off as those of photographs."""
    rng = np.random.default_rng(seed)
    away = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * side + 1
    noise = np.fft.rfft2(rng.normal(size=(count, channels, side, side))) / away**1.2
    fields = np.fft.irfft2(noise, (side, side))
    fields = 128 + 50 * fields / fields.std((2, 3), keepdims=True)
    return np.clip(np.rint(fields), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def brightness(picture):
    pixels = np.asarray(picture, np.float64)
    return luminance(pixels if pixels.ndim == 3 else pixels[..., None])


def as_image(picture):
    return Image.fromarray(picture.squeeze())


def as_jpeg(image):
    file = BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2))


@pytest.mark.parametrize("side", [64, 72, 100, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_marked_picture_is_known_by_its_key_and_looks_the_same(side, channels):
    plain = landscapes(2, side, channels)
    marked = embed(plain, SECRET)

    assert marked.dtype == np.uint8
    assert min(psnr(*pair) for pair in zip(plain, marked, strict=True)) > 38.5
    for each in marked:
        assert detect(brightness(each), SECRET).p_value < 1e-30
        assert detect(brightness(each), OTHER).p_value > SURE
    for each in plain:
        assert detect(brightness(each), SECRET).p_value > SURE


def test_a_picture_is_marked_alike_in_any_batch():
    plain = landscapes(5)
    together = embed(plain, SECRET)

    for index in range(5):
        assert (embed(plain[index : index + 1], SECRET)[0] == together[index]).all()
    assert (embed(plain[::-1], SECRET)[::-1] == together).all()


def test_what_passes_the_quick_test_passes_the_whole_one():
    for pictures in (landscapes(8), embed(landscapes(8), SECRET), landscapes(3) // 200 * 255):
        numbers = np.stack([*map(brightness, pictures)])
        for one, quick in zip(numbers, detect_unchanged(numbers, SECRET), strict=True):
            assert detect(one, SECRET).p_value <= quick.p_value * (1 + 1e-6)


@pytest.mark.parametrize("side", [64, 96])
def test_the_mark_survives_jpeg_resizing_and_noise(side):
    rng = np.random.default_rng(0)
    for each in embed(landscapes(4, side), SECRET):
        image = as_image(each)
        noisy = np.clip(each + rng.normal(0, 5, each.shape), 0, 255)
        copies = [as_jpeg(image), image.convert("L"), noisy]
        copies += [image.resize((side // 2, side // 2), how) for how in (BICUBIC, BOX)]
        copies += [image.resize((side * 2, side * 2), how) for how in (BILINEAR, LANCZOS)]
        for copy in copies:
            assert detect(brightness(copy), SECRET).p_value < SURE


@pytest.mark.parametrize("side", [64, 80])
def test_the_mark_survives_cropping_by_a_tenth(side):
    left = side - side // 10
    for number, each in enumerate(embed(landscapes(2, side), SECRET)):
        x, y = number * 2, side - left - number
        crop = as_image(each).crop((x, y, x + left, y + left))
        for copy in (crop, as_jpeg(crop)):
            assert detect(brightness(copy), SECRET).p_value > SURE
            assert detect_cropped(brightness(copy), SECRET).p_value < SURE
        assert detect_cropped(brightness(crop), OTHER).p_value > SURE


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_pictures_carry_the_mark(level):
    marked = embed(np.full((1, 64, 64, 1), level, np.uint8), SECRET)

    assert detect(brightness(marked[0]), SECRET).p_value < SURE
    assert psnr(marked, np.float64(level)) > 34


@pytest.mark.parametrize(("side", "pace", "shape"), [(64, 1, (58, 60)), (1024, 2, (820, 1000))])
def test_at_each_place_of_a_crop_the_tiles_that_are_whole_agree_as_in_the_whole_picture(
    side, pace, shape
):
    picture, dither = np.random.default_rng(0).uniform(0, 255, (side, side)), _dither(SECRET)
    down, across = (_tiled(size, side, pace) for size in shape)
    y, x = (side - size - 2 for size in shape)
    crop = picture[y : y + shape[0], x : x + shape[1]]
    placed = _all_places(crop, down, across, dither)
    whole = np.full((side, side), np.nan)
    whole[y : y + shape[0], x : x + shape[1]] = crop
    rows = waves(side)
    found = np.stack([_of_tile(rows, whole, at) for at in range(TILES**2)])
    inside = ~np.isnan(found[:, 0])
    wanted = dither.transpose(0, 2, 1, 3).reshape(TILES**2, -1)[:, 1:]
    agreed = agreement(found[:, 1:], wanted, STEP)[inside]
    at = (y // pace) * across.places + x // pace
    assert placed.counts[at] == agreed.size > 0
    assert placed.sums[at] == pytest.approx(agreed.sum(), abs=1e-2)


def _of_tile(rows, picture, at):
    """The coefficients of one tile; NaN if any of it was cut."""
    size = len(picture) // TILES
    y, x = (slice(each * size, (each + 1) * size) for each in divmod(at, TILES))
    down, across = (rows[each.start // size * ORDERS :][:ORDERS, each] for each in (y, x))
    return (down @ picture[y, x] @ across.T).ravel()


def test_each_wave_answers_to_itself_alone():
    rows = waves(64).reshape(TILES, ORDERS, 64)
    at = (np.arange(8) + 0.5) / 8
    for order in range(ORDERS):
        wave = np.zeros(64)
        wave[16:24] = np.cos(np.pi * order * at) * (np.sqrt(2) if order else 1)
        answers = rows @ wave
        assert answers[2, order] == pytest.approx(1)
        answers[2, order] = 0
        assert np.abs(answers).max() < 1e-12


@pytest.mark.parametrize("size", [(1024, 1024), (1100, 400)])
def test_what_is_as_large_as_samples_can_be_is_not_sought_in_a_larger_one(size):
    found = detect_cropped(np.random.default_rng(0).random(size) * 255, SECRET)
    assert (found.p_value, found.coefficients) == (1.0, 0)

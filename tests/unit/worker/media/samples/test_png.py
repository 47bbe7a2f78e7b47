import io
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from db.errors import BadInput
from worker.media.samples.containers import SampleRecord
from worker.media.samples.png import encode_png, parameters, read_pixels, read_png_record
from worker.media.samples.png_chunks import HEADER_END, MAX_TEXT_BYTES, chunk
from worker.media.samples.png_tags import read_picture_tags
from worker.media.samples.record import Origin, SharedRecord, to_json

ORIGIN = Origin("gan", "digits:1", "ab" * 32, 5, {"micro_batch": 64, "truncation": 0.7}, 64)


def images(count: int, size: tuple[int, int, int]) -> list[np.ndarray]:
    """Noise, a gradient and a drawing on black, in turn."""
    _height, width, _channels = size
    made = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, size, np.uint8)
        slope = np.broadcast_to(np.arange(width)[None, :, None] * 3 % 256, size).astype(np.uint8)
        drawn = np.where(noise > 250, noise, 0).astype(np.uint8)
        made.append([noise, slope, drawn][number % 3])
    return made


@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (1, 1, 1), (5, 9, 3)])
def test_every_pixel_comes_back_from_another_reader(size: tuple[int, int, int]) -> None:
    pixels = images(9, size)
    files = encode_png([SampleRecord(i, image, ORIGIN.shared()) for i, image in enumerate(pixels)])
    for data, image in zip(files, pixels, strict=True):
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert opened.mode == ("L" if size[2] == 1 else "RGB")
            assert (np.asarray(opened).reshape(size) == image).all()


def test_a_file_does_not_depend_on_the_images_beside_it() -> None:
    samples = [
        SampleRecord(i, each, ORIGIN.shared()) for i, each in enumerate(images(6, (8, 8, 3)))
    ]
    assert encode_png(samples) == [encode_png([sample])[0] for sample in samples]


@pytest.mark.parametrize("label", ["7", "naïve", "猫"])
def test_texts_are_the_chunks_that_pillow_would_write(label: str) -> None:
    record = ORIGIN.record(17, label=label)
    [data] = encode_png([SampleRecord(17, images(1, (4, 4, 1))[0], SharedRecord(record))])
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", parameters(record, (4, 4)))
    texts.add_text("genmill", to_json(record))
    expected = io.BytesIO()
    Image.new("L", (4, 4)).save(expected, "PNG", pnginfo=texts)
    before, _, after = data.partition(b"IDAT")
    assert before[:-4] == expected.getvalue().partition(b"IDAT")[0][:-4]
    assert after


def test_colour_pictures_are_about_as_small_as_pillow_makes_them() -> None:
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([(x * y / 16) % 256, (x + 2 * y) % 256, (x * x / 32) % 256], 2)
    noise = np.random.default_rng(0).integers(0, 8, (64, 64, 3))
    image = (smooth + noise).clip(0, 255).astype(np.uint8)
    [data] = encode_png([SampleRecord(0, image, ORIGIN.shared())])
    other = io.BytesIO()
    Image.fromarray(image).save(other, "PNG")
    assert len(data) < 1.15 * len(other.getvalue()) + 1000


@pytest.mark.parametrize("read", [read_png_record, read_picture_tags])
@pytest.mark.parametrize(("name", "flags"), [(b"zTXt", b"\0"), (b"iTXt", b"\1\0\0\0")])
def test_compressed_texts_have_one_limit_together(
    read: Callable[[bytes], object], name: bytes, flags: bytes
) -> None:
    [data] = encode_png([SampleRecord(0, images(1, (4, 4, 1))[0], ORIGIN.shared())])
    packed = zlib.compress(b"a" * (MAX_TEXT_BYTES // 4), 9)

    def with_texts(count: int) -> bytes:
        each = (chunk(name, b"k%d\0%b%b" % (at, flags, packed)) for at in range(count))
        return data[:HEADER_END] + b"".join(each) + data[HEADER_END:]

    assert read(with_texts(4))
    bomb = with_texts(40)
    tracemalloc.start()
    with pytest.raises(BadInput, match="16,777,216 bytes, uncompressed"):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_TEXT_BYTES


def test_of_more_pixels_than_samples_have_none_is_read() -> None:
    """A few bytes of zeros may be gigabytes of pixels, with no word of warning."""
    size = (12_000).to_bytes(4) + (9_000).to_bytes(4)
    with pytest.raises(BadInput, match="12000x9000 pixels, more than any sample"):
        read_pixels(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\1\0\0\0\0"))
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "GIF")
    data = file.getvalue()
    large = data[:6] + (12_000).to_bytes(2, "little") + (9_000).to_bytes(2, "little") + data[10:]
    assert read_picture_tags(large) == {}  # a warning would be an error here

"""How a sample that was made again differs from the one on record."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image, PngImagePlugin

from scheduler.results.verify import Compared, content_of, find_differences
from worker.media.samples.containers import SampleRecord
from worker.media.samples.png import encode_png
from worker.media.samples.record import Origin, to_json

ORIGIN = Origin("gan", "digits:1", "ab" * 32, 5, {}, 64)
IMAGE = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)


def ours(image: np.ndarray, origin: Origin = ORIGIN) -> bytes:
    [data] = encode_png([SampleRecord(3, image, origin.shared())])
    return data


def pillows(image: np.ndarray) -> bytes:
    """As earlier versions encoded it."""
    text, file = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("genmill", to_json(ORIGIN.record(3)))
    Image.fromarray(image[:, :, 0]).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def test_equal_bytes_have_no_differences():
    assert find_differences(ours(IMAGE), ours(IMAGE)) == {}


def test_the_same_pixels_from_another_encoder_are_told_from_other_pixels():
    assert list(find_differences(pillows(IMAGE), ours(IMAGE))) == ["encoding"]
    assert find_differences(pillows(IMAGE), ours(255 - IMAGE)) == {}


def test_settings_that_differ_are_named():
    found = find_differences(ours(IMAGE), ours(IMAGE, replace(ORIGIN, precision="bf16")))
    assert found == {"precision": {"then": "fp32", "now": "bf16"}}


def compared(was: bytes, now: bytes) -> Compared:
    differences = find_differences(was, now)
    return Compared("j", "old", "new", differences, content_of(was) == content_of(now))


def test_a_sample_that_a_newer_genmill_makes_again_is_the_same_but_for_its_record():
    newer = replace(ORIGIN, genmill="0.2.0+g0000000", torch="3")
    found = compared(ours(IMAGE), ours(IMAGE, newer))
    assert (found.equal, found.reproduced) == (False, True)
    assert found.differences["genmill"]["now"] == "0.2.0+g0000000"
    assert not compared(ours(IMAGE), ours(255 - IMAGE, newer)).reproduced
    assert not compared(ours(IMAGE), ours(IMAGE, replace(newer, precision="bf16"))).reproduced
    assert not compared(pillows(IMAGE), ours(IMAGE)).reproduced  # the same software

"""The label that people see or hear."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from db.errors import Refused
from tests.unit.worker.marks.kit import NO_KEYS, SHAPES, marked, marking_of, samples_of
from worker.marks import find_mark
from worker.marks.apply import Marker
from worker.media import find_medium
from worker.media.samples.picture_label import misfit, room_for
from worker.media.samples.tags import Label

MARK = find_mark("visible_label")
USUAL = Label("AI生成", 0.05)


def read(data, media):
    return MARK.read(data, NO_KEYS, find_medium(media))


@pytest.mark.parametrize("media", ["image", "audio", "text"])
def test_a_label_is_found_again(media):
    marker, [first, _] = marked(media, "visible_label")
    assert read(first, media).state == "present"
    assert marker.data == {"visible_label": {"applied": 2, "not_applied": {}}}
    _, [plain, _] = marked(media, "record")
    assert read(plain, media).state == "absent"


def test_a_sound_of_a_rate_that_none_has_is_not_searched():
    """Its label would have as many samples as the rate says, whatever the file's size."""
    _, [plain, _] = marked("audio", "record")
    at = plain.index(b"fmt ") + 12
    found = read(plain[:at] + (1_000_000).to_bytes(4, "little") + plain[at + 4 :], "audio")
    assert (found.state, "a sample rate of 1,000,000 Hz" in found.why) == ("damaged", True)


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize("size", [56, 64, 100, 256, 1000])
def test_letters_are_at_least_5_percent_of_the_side_and_leave_most_of_the_picture_alone(size):
    [sample] = samples_of("image", 1, size)
    marker = Marker(marking_of("image", "visible_label"))
    black, grey = (
        pixels(*marker.encode([replace(sample, output=picture)], SHAPES["image"]))
        for picture in (np.zeros_like(sample.output), np.full_like(sample.output, 99))
    )
    assert 0 < (grey != 99).mean() <= 0.25
    letters = np.flatnonzero((black > 100).any(axis=1))
    assert np.ptp(letters) + 1 >= max(9, 0.05 * size)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_a_small_picture_has_no_room_which_is_counted(size):
    marker, [first, _] = marked("image", "visible_label", size=size)
    [why] = marker.data["visible_label"]["not_applied"]
    assert f"{size}x{size} pixels have no room" in why
    assert marker.data["visible_label"]["applied"] == 0
    assert read(first, "image").state == "absent"


def test_a_label_is_found_in_a_jpeg_of_the_same_size_and_in_no_plain_picture():
    _, [first, _] = marked("image", "visible_label", size=128)
    copy = io.BytesIO()
    with Image.open(io.BytesIO(first)) as image:
        image.save(copy, "JPEG", quality=75)
    assert read(copy.getvalue(), "image").state == "present"
    for shade in (0, 128, 255):
        plain = np.full((64, 64, 3), shade, np.uint8)
        [sample] = samples_of("image", 1)
        [data] = find_medium("image").encode([replace(sample, output=plain)], SHAPES["image"])
        assert read(data, "image").state == "absent"


def test_a_text_of_ones_own_is_named_in_the_file_and_found_again():
    settings = {"visible_label": {"text": "Made by AI", "share": 0.1}}
    for media in ("image", "text"):
        _, [first, _] = marked(media, "visible_label", size=256, **settings)
        assert read(first, media).says == {"text": "Made by AI"}


def test_a_text_that_cannot_be_drawn_is_refused_at_once():
    with pytest.raises(Refused, match="cannot be drawn; use 1 to 40 ASCII characters"):
        marking_of("image", "visible_label", visible_label={"text": "人工智能"})
    assert marking_of("text", "visible_label", visible_label={"text": "人工智能"})


def test_a_sound_begins_with_the_rhythm_of_ai_and_goes_on_as_it_was():
    [sample] = samples_of("audio", 1)
    _, [data] = marked("audio", "visible_label", count=1)
    medium = find_medium("audio")
    [plain] = medium.encode([sample], SHAPES["audio"])
    head, tail = (
        len(medium.content(data)) - len(medium.content(plain)),
        medium.content(plain)[-1600:],
    )
    assert head == 2 * round(13 * 0.08 * 8000)
    assert medium.content(data).endswith(tail)


def test_a_sound_of_a_low_rate_cannot_hold_a_tone():
    marking = marking_of("audio", "visible_label")
    low = replace(marking, shape=replace(SHAPES["audio"], sample_rate=1000))
    assert MARK.misfit(samples_of("audio", 1)[0], low).startswith("sounds of 1000 Hz")


def test_a_label_fits_only_where_it_covers_a_quarter_at_most():
    assert not room_for(USUAL, 40, 12)
    assert room_for(USUAL, 600, 20)


@pytest.mark.parametrize(("text", "side"), [("AI生成", 53), ("Made by AI", 77)])
def test_a_label_that_does_not_fit_says_what_would(text, side):
    label = Label(text, 0.05)
    assert misfit(label, 28, 28).endswith(f"which needs {side}x{side}")
    assert (misfit(label, side, side), misfit(label, side - 1, side - 1) != "") == ("", True)


def test_a_label_that_fits_no_picture_says_so():
    for label in (Label("M" * 40, 0.05), Label("AI", 1.0)):
        assert "is too large for any: shorten it, or its share" in misfit(label, 64, 64)
        assert misfit(label, 1024, 1024)

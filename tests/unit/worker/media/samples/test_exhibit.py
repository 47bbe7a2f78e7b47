"""How samples are shown on pages: pictures that say what they are, sounds, texts."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput
from tests.site_pages import sample
from worker.media import MEDIA, find_medium
from worker.media.samples.exhibit import LARGEST, draw
from worker.media.samples.record import AI_GENERATED
from worker.music.notes import is_music


def shown(what: str):
    _, data, _ = sample(0, what)
    return data, find_medium({"music": "text"}.get(what, what)).exhibit(data)


def test_a_small_picture_is_shown_as_it_is_with_all_of_its_marks():
    data, exhibit = shown("image")
    assert (exhibit.picture, exhibit.size, exhibit.sound) == (data, (28, 28), b"")
    assert not exhibit.is_sketch


def test_a_large_picture_is_shown_smaller_and_says_what_it_is():
    pixels = np.random.default_rng(1).integers(0, 255, (1200, 900, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    exhibit = find_medium("image").exhibit(file.getvalue())
    assert exhibit.size == (LARGEST * 3 // 4, LARGEST)
    with Image.open(BytesIO(exhibit.picture)) as picture:
        assert picture.size == exhibit.size
        assert AI_GENERATED in picture.info["XML:com.adobe.xmp"]


def test_a_sound_is_shown_as_its_spectrogram_and_plays_itself():
    data, exhibit = shown("audio")
    assert (exhibit.sound, exhibit.is_sketch, exhibit.text) == (data, True, "")
    with Image.open(BytesIO(exhibit.picture)) as picture:
        assert picture.size == exhibit.size == (480, 270)
        assert AI_GENERATED in picture.info["XML:com.adobe.xmp"]
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50


def test_a_text_is_shown_as_text_and_music_can_be_heard_too():
    _, text = shown("text")
    assert (text.text, text.picture, text.sound) == ("The quick brown fox.", b"", b"")
    _, music = shown("music")
    assert music.text.startswith("t100 60:4")
    assert music.sound.startswith(b"RIFF")
    assert find_medium("audio").read_record(music.sound)["digital_source_type"] == AI_GENERATED
    with Image.open(BytesIO(music.picture)) as picture:
        assert len(picture.getcolors() or []) >= 3


@pytest.mark.parametrize(
    ("text", "is_it"),
    [
        ("t100 60:4 62:2", True),
        ("60:4 la 62:2", True),
        ("r:4", True),
        ("we meet at 12:30 or 14:30", False),
        ("words", False),
        ("", False),
    ],
)
def test_a_text_is_music_if_most_of_its_words_are_notes(text, is_it):
    assert is_music(text) == is_it


@pytest.mark.parametrize("medium", MEDIA)
def test_a_damaged_sample_is_refused(medium):
    data = find_medium(medium).signature
    with pytest.raises(BadInput):
        find_medium(medium).exhibit(data)


def test_pictures_are_drawn_alike_each_time():
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    assert draw(picture) == draw(picture)

from pathlib import Path

import numpy as np
from PIL import Image

from worker.engine.curves import HEIGHT, WIDTH, draw_curves
from worker.media.samples.contact_sheet import GAP, contact_sheet
from worker.media.samples.spectrogram import BOTTOM, LEFT, spectrogram, spectrogram_sheet
from worker.media.samples.spectrogram import HEIGHT as HEIGHT_OF_SOUND


def test_contact_sheet_places_pictures_row_by_row() -> None:
    pictures = [np.full((40, 40, 3), 50 * place, np.uint8) for place in range(5)]
    sheet = contact_sheet([pictures[:2], pictures[2:4], pictures[4:]])
    assert sheet.size == (2 * 42 + GAP, 3 * 42 + GAP)
    assert [sheet.getpixel((x, y)) for y in (20, 62, 104) for x in (20, 62)] == [
        *[(50 * place,) * 3 for place in range(5)],
        (64, 64, 64),
    ]


def test_contact_sheet_enlarges_small_grey_pictures() -> None:
    sheet = contact_sheet([[np.zeros((8, 8, 1), np.uint8)]])
    assert sheet.mode == "L"
    assert sheet.size == (8 * (8 + 2 * GAP), 8 * (8 + 2 * GAP))


def test_a_spectrogram_shows_a_tone_at_its_place_in_time_and_frequency() -> None:
    time = np.arange(4000) / 8000
    tone = np.where(time < 0.25, np.sin(2 * np.pi * 1000 * time), 0).astype(np.float32)
    levels = spectrogram(tone, 8000)
    assert levels.shape == (129, 125)
    assert 128 - levels[:, 30].argmax() == 32, "1,000 of 4,000 Hz, and the highest comes first"
    assert levels[:, 30].max() - levels[:, 100].max() > 60


def test_a_sheet_of_sounds_has_a_row_a_class_and_room_for_the_longest() -> None:
    sounds = [np.full(length, 0.1, np.float32) for length in (1, 800, 80, 400)]
    sheet = spectrogram_sheet(sounds, rate=8000, columns=2, names=("0", "1"))
    assert sheet.size == (LEFT + 2 * (25 + 4), 2 * (HEIGHT_OF_SOUND + 4) + BOTTOM)


def test_curves_are_drawn_one_panel_each(tmp_path: Path) -> None:
    draw_curves({"a": [(1, 2.0), (9, 1.0)], "b": [(5, 3.0)], "empty": []}, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (WIDTH, 2 * HEIGHT)


def test_no_curves_make_an_empty_picture(tmp_path: Path) -> None:
    draw_curves({}, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)

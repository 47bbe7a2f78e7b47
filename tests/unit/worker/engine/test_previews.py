from pathlib import Path

import numpy as np
from PIL import Image

from worker.engine.curves import HEIGHT, WIDTH, draw_curves
from worker.engine.previews import GAP, contact_sheet


def test_contact_sheet_places_pictures_row_by_row() -> None:
    pictures = [np.full((40, 40, 3), 50 * place, np.uint8) for place in range(5)]
    sheet = contact_sheet(pictures, columns=2)
    assert sheet.size == (2 * 42 + GAP, 3 * 42 + GAP)
    assert [sheet.getpixel((x, y)) for y in (20, 62, 104) for x in (20, 62)] == [
        *[(50 * place,) * 3 for place in range(5)],
        (64, 64, 64),
    ]


def test_contact_sheet_enlarges_small_grey_pictures() -> None:
    sheet = contact_sheet([np.zeros((8, 8, 1), np.uint8)], columns=1)
    assert sheet.mode == "L"
    assert sheet.size == (8 * (8 + 2 * GAP), 8 * (8 + 2 * GAP))


def test_curves_are_drawn_one_panel_each(tmp_path: Path) -> None:
    draw_curves({"a": [(1, 2.0), (9, 1.0)], "b": [(5, 3.0)], "empty": []}, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (WIDTH, 2 * HEIGHT)


def test_no_curves_make_an_empty_picture(tmp_path: Path) -> None:
    draw_curves({}, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)

"""A contact sheet of downloaded pictures: one row a class."""

import json
from collections import defaultdict
from pathlib import Path

from PIL import Image

COLUMNS = 16
SIDE = 56  # the least side of a picture on the sheet, in pixels
GAP = 2  # between pictures


def draw_sheet(folder: Path, path: Path, *, columns: int = COLUMNS) -> Path:
    """Draw the first `columns` pictures of each label found in `folder` and write them to `path`.

    `folder` holds `000000017.png` beside `000000017.json`, as `artifact download` writes them.
    Raises `FileNotFoundError` where there are none.
    """
    rows = _by_label(folder, columns)
    if not rows:
        raise FileNotFoundError(f"no pictures with labels in {folder}")
    with Image.open(next(iter(rows.values()))[0]) as first:
        mode, side = first.mode, max(SIDE, first.width)
        size = (columns * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP)
    sheet = Image.new(mode, size, "white")
    for y, label in enumerate(sorted(rows)):
        for x, picture in enumerate(rows[label]):
            with Image.open(picture) as image:
                larger = image.resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(larger, (x * (side + GAP), y * (side + GAP)))
    sheet.save(path)
    return path


def _by_label(folder: Path, limit: int) -> dict[str, list[Path]]:
    rows: dict[str, list[Path]] = defaultdict(list)
    for record in sorted(folder.glob("*.json")):
        label = json.loads(record.read_text("utf-8")).get("label")
        picture = record.with_suffix(".png")
        if label is not None and picture.exists() and len(rows[label]) < limit:
            rows[label].append(picture)
    return rows

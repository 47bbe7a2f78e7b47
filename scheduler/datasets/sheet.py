"""A page that shows items of a version: pictures, spectrograms or the beginnings of texts."""

from pathlib import Path

import numpy as np

from db.errors import Refused, Unreachable
from db.path_errors import path_error
from worker.data.dataset import TRAIN, LocalDataset, Shape
from worker.media import find_medium


def draw_sheet(content: LocalDataset, path: Path) -> None:
    """Write a page of training items to `path`, a row for each label if there are some."""
    shape = Shape.from_json(content.manifest["shape"])
    medium = find_medium(shape.media)
    page = medium.page
    if path.suffix.lower() != page.suffix:
        raise Refused(
            f"a sheet of {shape.media} data is a {page.suffix} file, not {path.name!r}",
            remedy=f"name it {path.stem}{page.suffix}",
        )
    items = _chosen(content, len(shape.labels), page.rows, page.columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        medium.write_page(medium.outputs(content, items), shape, path)
    except OSError as error:
        raise path_error(error, path, verb="written to", kind=Unreachable) from None


def _chosen(content: LocalDataset, labels: int, rows: int, columns: int) -> list[int]:
    """The first items of each label, as many of each; of all if there are no labels or too many."""
    train = np.flatnonzero(content.splits() == TRAIN)
    if not 1 < labels <= rows:
        return [int(each) for each in train[: rows * columns]]
    numbers = content.array("labels")[train]
    found = [train[numbers == label][:columns] for label in range(labels)]
    shortest = min(map(len, found)) or columns
    return [int(each) for row in found for each in row[:shortest]]

"""A page that shows items of a version: pictures, spectrograms or the first lines of texts."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from db.errors import Refused
from worker.data.dataset import TRAIN, LocalDataset, Shape
from worker.media import find_medium
from worker.media.samples.containers import Output

TEXT_CHARACTERS = 400


def draw_sheet(content: LocalDataset, path: Path) -> None:
    """Write a page of training items to `path`, a row for each label if there are some."""
    shape = Shape.from_json(content.manifest["shape"])
    medium = find_medium(shape.media)
    if path.suffix.lower() != medium.page.suffix:
        raise Refused(
            f"a sheet of {shape.media} data is a {medium.page.suffix} file, not {path.name!r}",
            remedy=f"name it {path.stem}{medium.page.suffix}",
        )
    if shape.media == "text":
        outputs: list[Output] = list(_texts(content, medium.page.rows))
    else:
        items = _chosen(content, len(shape.labels), medium.page.rows, medium.page.columns)
        find = _image if shape.media == "image" else _sound
        outputs = [find(content, item) for item in items]
    path.parent.mkdir(parents=True, exist_ok=True)
    medium.write_page(outputs, shape, path)


def _chosen(content: LocalDataset, labels: int, rows: int, columns: int) -> list[int]:
    """The first items of each label, or of all if there are no labels or too many."""
    train = np.flatnonzero(content.array("split")[:] == TRAIN)
    if not 1 < labels <= rows:
        return [int(each) for each in train[: rows * columns]]
    numbers = content.array("labels")[train]
    found = [train[numbers == label][:columns] for label in range(labels)]
    shortest = min(map(len, found)) or columns
    return [int(each) for row in found for each in row[:shortest]]


def _image(content: LocalDataset, item: int) -> Output:
    return np.array(content.array("images")[item])


def _sound(content: LocalDataset, item: int) -> Output:
    start, end = content.array("offsets")[item : item + 2]
    return np.asarray(content.array("sounds")[start:end], np.float32) / 32768


def _texts(content: LocalDataset, count: int) -> Iterator[str]:
    from worker.cleaning.rows import texts_of  # noqa: PLC0415 - for texts only

    for row in islice(content.documents(TRAIN), count):
        yield "\n".join(texts_of(row))[:TEXT_CHARACTERS]

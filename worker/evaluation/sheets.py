"""Sheets of pictures for the report: made and real ones, and made ones beside training ones."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.evaluation.judge import Labels, Pixels
from worker.evaluation.request import Exhibit
from worker.evaluation.seen import Pictures
from worker.media.samples.contact_sheet import contact_sheet

ROWS, COLUMNS = 10, 10
PAIRS = 10  # of made pictures with their nearest training ones


def picture_exhibits(pictures: Pictures) -> list[Exhibit]:
    """Samples and held-out items, then samples beside the training items nearest to them."""
    real = pictures.held_out.items
    asked = None if (pictures.asked < 0).all() else pictures.asked
    by_class = "" if asked is None else _tell_rows(asked, pictures.names)
    return [
        Exhibit("Made", by_class, _sheet(pictures.made, asked)),
        Exhibit("Held out", by_class, _sheet(real.pixels, None if asked is None else real.labels)),
        _neighbours(
            pictures,
            np.argsort(pictures.neighbours.made, kind="stable")[:PAIRS],
            "Nearest to training data",
            "Above: the samples nearest to a training item, by the judge's features. Below: that "
            "item. Equal pictures are copies.",
        ),
        _neighbours(
            pictures,
            np.argsort(-pictures.neighbours.made, kind="stable")[:PAIRS],
            "Farthest from training data",
            "Above: the samples farthest from every training item. Below: the nearest one.",
        ),
    ]


def _tell_rows(labels: Labels, names: Sequence[str]) -> str:
    """Which class each row of a sheet shows."""
    classes = np.unique(labels)[:ROWS]
    return f"A row a class: {', '.join(names[each] for each in classes if each >= 0)}."


def _sheet(pixels: Pixels, labels: Labels | None) -> Image.Image:
    if labels is None:
        shown = pixels[: ROWS * COLUMNS]
        rows = [list(shown[at : at + COLUMNS]) for at in range(0, len(shown), COLUMNS)]
    else:
        found = [np.flatnonzero(labels == each)[:COLUMNS] for each in np.unique(labels)[:ROWS]]
        rows = [list(pixels[chosen]) for chosen in found]
    return contact_sheet(rows)


def _neighbours(
    pictures: Pictures, chosen: npt.NDArray[np.int64], title: str, note: str
) -> Exhibit:
    places = pictures.neighbours.made_places[chosen]
    rows = [list(pictures.made[chosen]), list(pictures.train.items.pixels[places])]
    return Exhibit(title, note, contact_sheet(rows))

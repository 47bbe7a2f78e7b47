"""What the report shows to people: made and held-out items, and the nearest training items.

Of every medium: pictures and sounds as sheets, sounds and notes to be heard, texts to be read.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.evaluation.judge import Labels, Pixels
from worker.evaluation.request import Exhibit
from worker.evaluation.runs import longest_runs
from worker.evaluation.seen import Pictures
from worker.evaluation.writings import Writings
from worker.media.samples.contact_sheet import contact_sheet
from worker.media.samples.piano_roll import piano_roll
from worker.media.samples.wav import float_to_int16, write_wav
from worker.music import notes, synthesiser

ROWS, COLUMNS = 10, 10
PAIRS = 10  # of made pictures with their nearest training ones
TEXTS = 6  # of each kind
TEXT_CHARACTERS = 600
NEAREST_TEXTS = 3
HEARD, HEARD_S = 4, 8  # sounds of each kind, and the seconds of each
PIECES = 2  # of music in a row of a sheet

Wave = npt.NDArray[np.floating]  # (T,) in [-1, 1]


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


def sound_exhibits(
    pictures: Pictures, made: Sequence[Wave], real: Sequence[Wave], rate: int
) -> list[Exhibit]:
    """Those of the sounds' spectrograms, with the first made and held-out sounds to be heard."""
    first, second, *others = picture_exhibits(pictures)
    sounds = (
        [
            (f"{name} {place}", _wav(float_to_int16(np.asarray(wave)), rate))
            for place, wave in enumerate(waves[:HEARD])
        ]
        for name, waves in (("sample", made), ("held-out sound", real))
    )
    both = zip((first, second), sounds, strict=True)
    return [*(replace(each, sounds=heard) for each, heard in both), *others]


def text_exhibits(writings: Writings, prompts: Sequence[str]) -> list[Exhibit]:
    """Made and held-out texts, and the samples with the longest runs of training words."""
    made = [(f"sample {place}", text) for place, text in enumerate(writings.made[:TEXTS])]
    real = [(f"held-out text {place}", text) for place, text in enumerate(writings.real[:TEXTS])]
    for place, prompt in enumerate(prompts[:TEXTS]):
        made[place] = (f"to: {prompt[:200]}", made[place][1])
    exhibits = [
        Exhibit("Made", texts=list(map(_short, made))),
        Exhibit("Held out", texts=list(map(_short, real))),
    ]
    if writings.are_music:
        both = (writings.made, writings.real)
        exhibits = [_played(each, texts) for each, texts in zip(exhibits, both, strict=True)]
    return [*exhibits, *_copied(writings)]


def _copied(writings: Writings) -> list[Exhibit]:
    """The samples that share the most with training, each beside the passage; none shares none."""
    found = longest_runs(writings.made_words, writings.training, most=NEAREST_TEXTS)
    if not found:
        return []
    texts = [
        part
        for run in found
        for part in (
            (f"sample {run.sample}: {run.words} words in a row", writings.made[run.sample]),
            ("training", run.passage),
        )
    ]
    return [
        Exhibit(
            "Nearest to training data",
            f"The samples with the longest runs of words that are in the first "
            f"{len(writings.training):,} training texts, too. Words are counted with marks.",
            texts=list(map(_short, texts)),
        )
    ]


def _played(exhibit: Exhibit, texts: Sequence[str]) -> Exhibit:
    """An exhibit of texts that are notes, with these drawn and to be heard."""
    headed = zip(exhibit.texts, map(notes.read, texts), strict=False)
    pieces = [(heading, piece) for (heading, _), piece in headed if piece.notes]
    if not pieces:
        return exhibit
    drawn = [np.asarray(piano_roll(piece)) for _, piece in pieces]
    rows = [drawn[at : at + PIECES] for at in range(0, len(drawn), PIECES)]
    sounds = [
        (heading, _wav(synthesiser.play(piece), synthesiser.RATE))
        for heading, piece in pieces[:HEARD]
    ]
    note = "Time to the right, pitch upwards."
    return replace(exhibit, note=note, picture=contact_sheet(rows), sounds=sounds)


def _wav(samples: npt.NDArray[np.int16], rate: int) -> bytes:
    return write_wav(samples[: HEARD_S * rate], rate, {})


def _short(shown: tuple[str, str]) -> tuple[str, str]:
    heading, text = shown
    return heading, text[:TEXT_CHARACTERS] + "..." * (len(text) > TEXT_CHARACTERS)


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

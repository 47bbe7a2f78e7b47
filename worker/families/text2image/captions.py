"""Captions as tokens, and what a version keeps to read prompts as it read its captions.

A caption's white space becomes single blanks, with one before the first word, so that a word has
the same token wherever it stands. What is too long loses its end; what is shorter is filled up
with the tokenizer's `end`. So the caption of nothing is all `end`, and an empty prompt is it.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, Refused
from worker.data.dataset import TRAIN, LocalDataset
from worker.feeds.tokenizer import Tokenizer

FILE = "captions.json"
EXAMPLES = 10


@dataclass(frozen=True)
class Kept:
    """What `captions.json` holds: the tokens that a caption is cut or filled up to, and examples
    of captions of the training pictures.
    """

    length: int
    examples: Sequence[str]

    def save(self, folder: Path) -> None:
        """Write `captions.json` into `folder`."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (folder / FILE).write_text(text + "\n", "utf-8")


def load_kept(folder: Path) -> Kept:
    """Read a folder's `captions.json`; `BadInput` where it is missing or damaged."""
    try:
        data = json.loads((folder / FILE).read_text("utf-8"))
        return Kept(int(data["length"]), [str(example) for example in data["examples"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{FILE} of the model cannot be read: {error!r}") from None


class Captions:
    """The captions of a dataset's images, or their labels' names, in the images' order.

    Read anew each time that they are gone through. `Refused` where there is neither.
    """

    def __init__(self, dataset: LocalDataset) -> None:
        self._dataset = dataset
        self._labels: list[str] = dataset.manifest["shape"]["labels"]
        self._captioned = next(dataset.captions(), None) is not None
        if not self._labels and not self._captioned:
            raise Refused(
                "this family learns from captions, and the dataset has neither captions nor "
                'labels; add it with a metadata.jsonl of lines {"file_name": ..., "text": ...} '
                "beside the pictures, or with the pictures in folders that say what they show"
            )

    def __iter__(self) -> Iterator[str]:
        if self._captioned:
            return map(tidy, self._dataset.captions())
        return (tidy(self._labels[label]) for label in self._dataset.array("labels"))


class TrainingCaptions:
    """Those of the images that train."""

    def __init__(self, captions: Captions, split: npt.NDArray[np.uint8]) -> None:
        self._captions, self._split = captions, split

    def __iter__(self) -> Iterator[str]:
        pairs = zip(self._captions, self._split, strict=True)
        return (text for text, code in pairs if code == TRAIN)


def tidy(text: str) -> str:
    """A caption as it is read: each word after one blank."""
    return "".join(f" {word}" for word in text.split())


def encode(tokenizer: Tokenizer, text: str, length: int) -> list[int]:
    """The `length` tokens of a tidy caption."""
    ids = tokenizer.encode(text)[:length]
    return ids + [tokenizer.end] * (length - len(ids))


def encode_all(
    captions: Captions, tokenizer: Tokenizer, *, least: int, most: int
) -> npt.NDArray[np.uint16]:
    """All captions' tokens, (N, T): T that of the longest, from `least` to `most`."""
    flat, lengths = array("i"), array("i")
    for text in captions:
        ids = tokenizer.encode(text)[:most]
        flat.extend(ids)
        lengths.append(len(ids))
    longest = max(lengths)
    width = max(longest, least)
    filled = np.arange(width) < np.frombuffer(lengths, np.int32)[:, None]  # (N, T)
    table = np.full(filled.shape, tokenizer.end, np.uint16)  # vocabularies are within 65,536
    table[filled] = np.frombuffer(flat, np.int32)
    return table


def choose_examples(captions: TrainingCaptions, *, among: int = 2_000) -> list[str]:
    """A few captions that together hold many words, from the first `among` different ones."""
    found: dict[str, None] = {}
    for text in captions:
        found[text] = None
        if len(found) >= among:
            break
    examples, seen = list[str](), set[str]()
    while found and len(examples) < EXAMPLES:
        newest = max(found, key=lambda text: len(set(text.split()) - seen))
        seen = seen | set(newest.split()) if set(newest.split()) - seen else set()
        examples.append(newest.strip())
        del found[newest]
    return examples

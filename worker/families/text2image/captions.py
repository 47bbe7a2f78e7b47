"""Captions as tokens, and what a version keeps to encode prompts in the same way.

White space becomes single spaces, with one before the first word, so that a word has the same
tokens in any position. Captions are truncated or padded with the tokenizer's `end`; the empty
caption is all `end`.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, Refused, raise_outage
from worker.data.dataset import TRAIN, LocalDataset
from worker.feeds.tokenizer import Tokenizer

FILE = "captions.json"
EXAMPLES = 10
EXAMINED = 2_000  # captions, to choose examples from


@dataclass(frozen=True)
class CaptionInfo:
    """The content of `captions.json`: caption length in tokens, and examples of captions."""

    length: int
    examples: Sequence[str]

    def save(self, folder: Path) -> None:
        """Write `captions.json` into `folder`."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (folder / FILE).write_text(text + "\n", "utf-8")


def load_caption_info(folder: Path) -> CaptionInfo:
    """Read a folder's `captions.json`; raise `BadInput` if it is missing or damaged."""
    try:
        data = json.loads((folder / FILE).read_text("utf-8"))
        return CaptionInfo(int(data["length"]), [str(example) for example in data["examples"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_outage(error)
        raise BadInput(f"{FILE} of the model cannot be read: {error!r}") from None


class Captions:
    """The captions of a dataset's images or, if there are none, their labels' names, in order.

    They are read anew at each iteration. Raises `Refused` if the dataset has neither.
    """

    def __init__(self, dataset: LocalDataset) -> None:
        self._dataset = dataset
        self._labels: list[str] = dataset.manifest["shape"]["labels"]
        self._captioned = next(dataset.captions(), None) is not None
        if not self._labels and not self._captioned:
            raise Refused(
                "this family needs captions, and the dataset has neither captions nor labels",
                remedy='add the images with a metadata.jsonl of lines {"file_name": ..., "text": '
                "...} beside them, or in folders named after what they show",
            )

    def __iter__(self) -> Iterator[str]:
        if self._captioned:
            return map(normalise, self._dataset.captions())
        return (normalise(self._labels[label]) for label in self._dataset.array("labels"))


class TrainingCaptions:
    """The captions of the training split."""

    def __init__(self, captions: Captions, split: npt.NDArray[np.uint8]) -> None:
        self._captions, self._split = captions, split

    def __iter__(self) -> Iterator[str]:
        pairs = zip(self._captions, self._split, strict=True)
        return (text for text, code in pairs if code == TRAIN)


def normalise(text: str) -> str:
    """The caption with one space before each word."""
    return "".join(f" {word}" for word in text.split())


def encode(tokenizer: Tokenizer, text: str, length: int) -> list[int]:
    """The `length` tokens of a normalised caption."""
    ids = tokenizer.encode(text)[:length]
    return ids + [tokenizer.end] * (length - len(ids))


def encode_all(
    captions: Captions, tokenizer: Tokenizer, *, least: int, most: int
) -> npt.NDArray[np.uint16]:
    """All captions' tokens (N, T); T is the longest caption's length, from `least` to `most`."""
    flat, lengths = array("i"), array("i")
    for text in captions:
        ids = tokenizer.encode(text)[:most]
        flat.extend(ids)
        lengths.append(len(ids))
    longest = max(lengths)
    width = max(longest, least)
    used = np.arange(width) < np.frombuffer(lengths, np.int32)[:, None]  # (N, T)
    table = np.full(used.shape, tokenizer.end, np.uint16)  # a vocabulary has at most 65,536 tokens
    table[used] = np.frombuffer(flat, np.int32)
    return table


def choose_examples(captions: TrainingCaptions) -> list[str]:
    """A few captions with many different words, from the first 2,000 distinct ones."""
    found: dict[str, None] = {}
    for text in captions:
        found[text] = None
        if len(found) >= EXAMINED:
            break
    examples, seen = list[str](), set[str]()
    while found and len(examples) < EXAMPLES:
        newest = max(found, key=lambda text: len(set(text.split()) - seen))
        seen = seen | set(newest.split()) if set(newest.split()) - seen else set()
        examples.append(newest.strip())
        del found[newest]
    return examples

"""Made texts and the real ones that they are compared with, also as words."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from db.errors import Refused
from worker.data.dataset import TRAIN, LocalDataset
from worker.evaluation.pictures import CODES
from worker.evaluation.request import Request
from worker.feeds.tokens import Texts
from worker.metrics.samples import generator
from worker.music import notes

# a run of letters and digits, a mark, or one character of a script without spaces
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+|[^\w\s]")
MOST_WORDS = 2_000_000  # of the split that are read
PIECES = 2_000  # documents of a split whose notes are counted

Words = list[str]


@dataclass(frozen=True)
class Writings:
    """As many real texts as made ones: references, or excerpts of the same length in words."""

    made: list[str]
    real: list[str]
    made_words: list[Words]
    real_words: list[Words]
    other: list[str]  # excerpts of training, as long as the made texts
    references: bool  # whether real text i answers what made text i answers
    documents: list[str]  # of the held-out split
    training: list[str]  # documents

    @cached_property
    def are_music(self) -> bool:
        """Whether the held-out documents are notes."""
        return 2 * sum(map(notes.is_music, self.documents)) > len(self.documents)


def words_of(text: str) -> Words:
    """Words and punctuation marks in order."""
    return WORD.findall(text)


def read_references(request: Request) -> list[tuple[str, str]]:
    """Prompts of the split with their completions, as many as samples. Raises `Refused`."""
    protocol = request.protocol
    rows = list(prompted(request.dataset, protocol.split))
    if len(rows) < protocol.count:
        raise Refused(
            f"split {protocol.split} of {protocol.dataset} has {len(rows):,} prompts, but "
            f"{protocol.count:,} samples are asked for",
            remedy=f"use --count {len(rows)} or fewer, or another split",
        )
    chosen = generator(protocol.seed).permutation(len(rows))[: protocol.count]
    return [rows[place] for place in chosen]


def prompted(dataset: LocalDataset, split: str) -> Iterator[tuple[str, str]]:
    """The split's documents that are a prompt and a completion."""
    for row in dataset.documents(CODES[split]):
        if "prompt" in row:
            yield row["prompt"], row["completion"]


def read_writings(request: Request, made: list[str], references: list[str]) -> Writings:
    """Made texts beside references or, without any, excerpts of the split."""
    documents = list(islice(Texts(request.dataset, CODES[request.protocol.split]), PIECES))
    training = list(islice(Texts(request.dataset, TRAIN), PIECES))
    made_words = [words_of(text) for text in made]
    real = references or _excerpts(documents, made_words)
    real_words, other = [words_of(text) for text in real], _excerpts(training, made_words)
    return Writings(
        made, real, made_words, real_words, other, bool(references), documents, training
    )


def _excerpts(documents: Sequence[str], like: Sequence[Words]) -> list[str]:
    """For each made text an excerpt of the documents with as many words.

    They are spread evenly, and overlap only where the documents have too few words.
    """
    text = "\n".join(documents)
    places = [match.span() for match in islice(WORD.finditer(text), MOST_WORDS)]
    sizes = [min(len(words), len(places)) for words in like]
    room = max(len(places) - sum(sizes), 0)
    found, taken = [], 0
    for number, size in enumerate(sizes):
        first = (taken + room * number // max(len(sizes) - 1, 1)) % max(len(places) - size + 1, 1)
        found.append(text[places[first][0] : places[first + size - 1][1]] if size else "")
        taken += size
    return found

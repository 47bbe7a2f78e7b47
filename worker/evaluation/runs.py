"""Runs of words that made texts share with training texts: which samples are the nearest copies."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from worker.evaluation.writings import MOST_WORDS, WORD, Words

SHORTEST = 4  # words of a run
OCCURRENCES = 100  # of a run's beginning in the training texts, that are followed


@dataclass(frozen=True)
class Run:
    """The longest run of words of a made text that is in the training texts, too."""

    sample: int
    words: int
    passage: str  # of training, as many words as the sample has, with the run in it


def longest_runs(made: Sequence[Words], training: Sequence[str], *, most: int) -> list[Run]:
    """The `most` samples with the longest runs, the longest first; none of shorter than 4 words."""
    text = "\n".join(training)
    places = [match.span() for match in islice(WORD.finditer(text), MOST_WORDS)]
    numbers = {word: number for number, word in enumerate({w for words in made for w in words})}
    known = np.array([numbers.get(text[a:b], -1) for a, b in places], np.int64)
    begins = _begins(known, made, numbers)
    found = []
    for sample, words in enumerate(made):
        length, start, end = _longest([numbers[word] for word in words], begins)
        if length:
            first = max(min(end - length - start, len(places) - len(words)), 0)
            last = min(first + len(words), len(places)) - 1
            found.append(Run(sample, length, text[places[first][0] : places[last][1]]))
    return sorted(found, key=lambda run: (-run.words, run.sample))[:most]


def _begins(
    known: npt.NDArray[np.int64], made: Sequence[Words], numbers: dict[str, int]
) -> dict[tuple[int, ...], list[int]]:
    """Where in training each run of `SHORTEST` words begins that some made text has."""
    wanted = {
        tuple(numbers[word] for word in words[at : at + SHORTEST])
        for words in made
        for at in range(len(words) - SHORTEST + 1)
    }
    found = defaultdict[tuple[int, ...], list[int]](list)
    if len(known) < SHORTEST:
        return found
    windows = np.lib.stride_tricks.sliding_window_view(known, SHORTEST)
    for place in np.flatnonzero((windows >= 0).all(axis=1)).tolist():
        run = tuple(windows[place].tolist())
        if run in wanted and len(found[run]) < OCCURRENCES:
            found[run].append(place)
    return found


def _longest(
    words: Sequence[int], begins: dict[tuple[int, ...], list[int]]
) -> tuple[int, int, int]:
    """The longest run's number of words, where it begins in the text, and ends in training."""
    best, lengths = (0, 0, 0), dict[int, int]()
    for at in range(len(words) - SHORTEST + 1):
        places = begins.get(tuple(words[at : at + SHORTEST]), ())
        lengths = {place: lengths.get(place - 1, SHORTEST - 1) + 1 for place in places}
        for place, length in lengths.items():
            if length > best[0]:
                end = at + SHORTEST
                best = (length, end - length, place + SHORTEST)
    return best

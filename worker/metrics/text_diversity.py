"""How different made texts are from one another, on token lists; and how long they are."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from db.errors import Refused
from worker.metrics.ngrams import WORD_ORDER, Tokens, bleu, ngrams
from worker.metrics.samples import Values, generator

SELF_BLEU_TEXTS = 500


class Lengths(NamedTuple):
    """Statistics of the lengths of texts, in the unit that was counted."""

    mean: float
    deviation: float
    shortest: float
    median: float
    longest: float


def length_statistics(lengths: Sequence[int]) -> Lengths:
    """Mean, standard deviation (of the population), minimum, median and maximum."""
    if not len(lengths):
        raise Refused("no texts have lengths", remedy="pass one length or more")
    low, middle, high = np.percentile(lengths, [0, 50, 100])
    mean, deviation = np.mean(lengths), np.std(lengths)
    return Lengths(float(mean), float(deviation), float(low), float(middle), float(high))


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Distinct-n: different n-grams of all texts, as a share of all; higher is more diverse.

    Li et al. 2016, "A diversity-promoting objective function for neural conversation models",
    section 5. It falls with the number of tokens: compare equal numbers only. 0 where no text is
    as long as `n` tokens.
    """
    counts: Counter[tuple[str | int, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(text, n))
    return len(counts) / counts.total() if counts else 0.0


def self_bleu(texts: Sequence[Tokens], *, most: int = SELF_BLEU_TEXTS, seed: int = 0) -> float:
    """Mean of `self_bleu_scores`, 0 to 100; lower is more diverse.

    Zhu et al. 2018, "Texygen: a benchmarking platform for text generation models", section 3.
    """
    return float(self_bleu_scores(texts, most=most, seed=seed).mean())


def self_bleu_scores(
    texts: Sequence[Tokens], *, most: int = SELF_BLEU_TEXTS, seed: int = 0
) -> Values:
    """Sentence BLEU of each text with all others as references, 0 to 100.

    Of more than `most` texts a random `most` are used: the score grows with their number. Smoothed
    as `bleu` is; orders longer than a text are left out of its score.
    """
    if len(texts) < 2:
        raise Refused(f"{len(texts)} texts have no others", remedy="use two or more")
    chosen = generator(seed).permutation(len(texts))[:most]
    some = [texts[index] for index in chosen]
    rows = np.zeros((len(some), 2 + 2 * WORD_ORDER), np.int64)
    rows[:, 0] = [len(text) for text in some]
    rows[:, 1] = _nearest_lengths(rows[:, 0].tolist())
    for n in range(1, WORD_ORDER + 1):
        counts = [ngrams(text, n) for text in some]
        rows[:, 1 + n] = _matches_elsewhere(counts)
        rows[:, 1 + WORD_ORDER + n] = [count.total() for count in counts]
    return np.array([bleu(row[None], shorten=True) for row in rows])


def _matches_elsewhere(counts: list[Counter[tuple[str | int, ...]]]) -> list[int]:
    """For each text its n-grams, each counted as often as the text that has most of it has it."""
    most: dict[tuple[str | int, ...], tuple[int, int]] = {}  # the two largest counts of an n-gram
    for count in counts:
        for gram, times in count.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (times, first) if times > first else (first, max(second, times))
    return [
        sum(times if times < most[gram][0] else most[gram][1] for gram, times in count.items())
        for count in counts
    ]


def _nearest_lengths(lengths: list[int]) -> list[int]:
    """For each length the nearest other one; of two as near, the shorter."""
    places = Counter(lengths)
    nearest = {
        one: one
        if places[one] > 1
        else min((other for other in places if other != one), key=lambda x: (abs(x - one), x))
        for one in places
    }
    return [nearest[length] for length in lengths]

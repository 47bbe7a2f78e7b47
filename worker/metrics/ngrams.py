"""N-grams of token lists, and BLEU and chrF from the counts of those that match.

The counts of each pair are a row; a score is computed from the sum of rows, so that pairs can be
resampled without counting again.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from db.errors import Refused

WORD_ORDER = 4
CHARACTER_ORDER = 6
BETA = 2  # chrF: recall weighs twice as much as precision

Tokens = Sequence[str] | Sequence[int]
Rows = npt.NDArray[np.int64]  # (pairs, counts)


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[str | int, ...]]:
    """How often each run of `n` tokens occurs."""
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def bleu_counts(made: Tokens, reference: Tokens) -> list[int]:
    """A row for `bleu`: both lengths, then for n = 1 to 4 the n-grams that match, then all made."""
    matching, total = [], []
    for n in range(1, WORD_ORDER + 1):
        found = ngrams(made, n)
        matching.append((found & ngrams(reference, n)).total())
        total.append(found.total())
    return [len(made), len(reference), *matching, *total]


def bleu(rows: Rows, *, shorten: bool = False) -> float:
    """Corpus BLEU, 0 to 100, of rows of `bleu_counts`; higher is better.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation",
    equations 1-3, one reference each. Smoothing: the k-th order without a match counts as 2^-k
    matches (method 3 of Chen and Cherry 2014, "A systematic comparison of smoothing techniques for
    sentence-level BLEU"). With `shorten`, orders longer than the made text are left out, which
    suits single sentences.
    """
    length, reference_length, *counts = _summed(rows).tolist()
    matching, total = counts[:WORD_ORDER], counts[WORD_ORDER:]
    if not any(matching):
        return 0.0
    orders = sum(count > 0 for count in total)
    if orders < WORD_ORDER and not shorten:
        return 0.0
    logs, halvings = 0.0, 0
    for found, possible in zip(matching[:orders], total[:orders], strict=True):
        halvings += found == 0
        logs += math.log((found or 0.5**halvings) / possible)
    brevity = min(0.0, 1 - reference_length / length)
    return 100 * math.exp(brevity + logs / orders)


def chrf_counts(made: str, reference: str) -> list[int]:
    """A row for `chrf`: n-grams made, in the reference, and matching, for n = 1 to 6 in turn.

    White space is left out. Orders longer than the reference count nothing.
    """
    row: list[int] = []
    one, other = ("".join(text.split()) for text in (made, reference))
    for n in range(1, CHARACTER_ORDER + 1):
        found, expected = ngrams(one, n), ngrams(other, n)
        matching = (found & expected).total()
        row += [found.total() if expected else 0, expected.total(), matching]
    return row


def chrf(rows: Rows) -> float:
    """Corpus chrF2, 0 to 100, of rows of `chrf_counts`; higher is better.

    Popovic 2015, "chrF: character n-gram F-score for automatic MT evaluation", equation 1:
    precision and recall are averaged over the orders that both sides have.
    """
    orders = _summed(rows).reshape(CHARACTER_ORDER, 3)
    made, expected, matching = orders[(orders[:, :2] > 0).all(axis=1)].T
    if not matching.sum():
        return 0.0
    precision, recall = (matching / made).mean(), (matching / expected).mean()
    return float(100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall))


def _summed(rows: Rows) -> Rows:
    if not len(rows):
        raise Refused("no pairs of texts to compare", remedy="pass one made text and one reference")
    summed: Rows = np.asarray(rows).sum(axis=0)
    return summed

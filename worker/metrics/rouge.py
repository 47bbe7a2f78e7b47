"""ROUGE-L: the longest common subsequence of a made text and its reference."""

from collections import defaultdict
from collections.abc import Hashable

from worker.metrics.ngrams import Tokens


def rouge_l(made: Tokens, reference: Tokens) -> float:
    """F1 of the longest common subsequence, 0 to 1; higher is better. 0 where a side is empty.

    Lin 2004, "ROUGE: a package for automatic evaluation of summaries", equations 2-4 with beta 1.
    """
    common = common_subsequence(made, reference)
    return 2 * common / (len(made) + len(reference)) if common else 0.0


def common_subsequence(left: Tokens, right: Tokens) -> int:
    """Length of the longest common subsequence.

    Bit-parallel: Hyyro 2004, "Bit-parallel LCS-length computation revisited". A bit that is off
    marks a place in `right` where the length grows.
    """
    places: defaultdict[Hashable, int] = defaultdict(int)
    for place, token in enumerate(right):
        places[token] |= 1 << place
    everywhere = (1 << len(right)) - 1
    row = everywhere
    for token in left:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return len(right) - row.bit_count()

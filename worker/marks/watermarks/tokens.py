"""The watermark of texts: tournaments between tokens, and the test that finds their winners.

SynthID-Text (Dathathri et al. 2024, "Scalable watermarking for identifying large language model
outputs", Nature 634): the tokens before the next one and a key give each token some random bits,
its g-values, and the sampler prefers tokens whose bits are 1 by exactly as much as keeps, over all
keys, every token's probability. `worker.networks.token_watermark` is the sampler. Bits and contexts
are those of `SynthIDTextWatermarkLogitsProcessor` in transformers, given the same keys and table.

Two things are better than its defaults. The table of bits is secret and has a prime size: with a
public table of 2^16 bits, each key of 64 bits can be found from a page of text by trying 2^16. And
each sample uses one of `VARIANTS` sets of keys: with one set alone, all samples of a prompt would
go the same way after the same few tokens. A reader who does not know which one tries them all.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.marks.watermarks.dither import keystream, read_only

Tokens = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Tilted = Callable[[float], tuple[npt.NDArray[np.float64], float]]

CONTEXT = 5  # tokens before the next one that decide its bits
DEPTH = 16  # bits of a token, and layers of a tournament
VARIANTS = 256  # sets of keys of one secret
TABLE = 1_048_573  # bits to draw from: the largest prime below 2^20
WEIGHTS = np.arange(DEPTH, 0, -1)  # of the layers: later ones leave less to choose
AT_ONCE = 1 << 21  # bits that are looked up together
MOST_TILT = 50.0  # at which nearly all chance is on the highest score
MOST_SCORED = 20_000  # tokens of a text

_MULTIPLIER, _INCREMENT = np.uint64(6364136223846793005), np.uint64(1)  # as transformers


class Watermark(NamedTuple):
    """What the g-values of one sample are drawn by."""

    keys: Hashes  # (DEPTH,), each under 2^63
    table: Bits  # (TABLE,), of 0 and 1


class Detection(NamedTuple):
    """What the test of a text found."""

    p_value: float  # at most the chance that a text written without the key scores as high
    scored: int  # tokens that were looked at: each context once


def watermark_of(secret: bytes, variant: int) -> Watermark:
    """The keys and the table of one variant of a secret."""
    return Watermark(_all_keys(secret)[variant], _table(secret))


def variant_of(seed: int, index: int) -> int:
    """Which set of keys sample `index` of a job uses, of `VARIANTS`."""
    digest = hashlib.sha256(f"{seed} {index}".encode()).digest()
    return int.from_bytes(digest[:8]) % VARIANTS


def g_values(ngrams: Tokens, keys: Hashes, table: Bits) -> Bits:
    """The bits of the last token of each n-gram (N, CONTEXT + 1); `keys` are (..., 1 or N)."""
    hashed = np.ones(len(ngrams), np.uint64)
    for tokens in ngrams.T.astype(np.uint64):
        hashed = (hashed + tokens) * _MULTIPLIER + _INCREMENT
    drawn = (hashed + keys) * _MULTIPLIER + _INCREMENT
    return table[drawn.view(np.int64) % TABLE]


def detect(tokens: Sequence[int], secret: bytes, variant: int | None = None) -> Detection:
    """The test of a text's tokens, by one variant of the secret or by all of them.

    Exact for one variant: of a text that was written without the key each bit is 1 by chance, and
    the weighted sum of all bits has a known distribution. With all, the smallest p-value times
    their number bounds the chance.
    """
    ngrams = ngrams_of(tokens)[:MOST_SCORED]
    if not len(ngrams):
        return Detection(1.0, 0)
    keys, table = _all_keys(secret), _table(secret)
    tried = keys if variant is None else keys[variant : variant + 1]
    size = max(1, AT_ONCE // (len(ngrams) * DEPTH))
    parts = [tried[first : first + size] for first in range(0, len(tried), size)]
    best = 0
    for part in parts:
        ones = g_values(ngrams, part[..., None], table).sum(-1, dtype=np.int64)  # (variants, DEPTH)
        best = max(best, int((ones @ WEIGHTS).max()))
    chance = tail(best, len(ngrams), float(table.mean()))
    return Detection(min(1.0, len(tried) * chance), len(ngrams))


def tail(score: int, count: int, share: float) -> float:
    """The chance that `count` tokens of random bits score `score` or more; `share` of bits are 1.

    Exact up to rounding, also where it is tiny: the distribution of one token's score is tilted so
    that `score` is its mean (Esscher 1932), and its `count`-fold sum computed by Fourier transform.
    """
    chances = _one_token(share)
    values = np.arange(len(chances))

    def tilted(theta: float) -> tuple[npt.NDArray[np.float64], float]:
        weights = np.log(chances) + theta * values
        level = float(np.logaddexp.reduce(weights))
        return np.exp(weights - level), level

    if score > count * values[-1]:
        return 0.0
    theta = _tilt(tilted, values, score / count)
    distribution, level = tilted(theta)
    size = 1 << (count * (len(chances) - 1)).bit_length()  # an FFT of a prime size takes long
    total = np.fft.irfft(np.fft.rfft(distribution, size) ** count, size)[score:]
    upper = np.maximum(total, 0) * np.exp(-theta * np.arange(len(total)))
    return min(1.0, float(upper.sum() * np.exp(count * level - theta * score)))


def _tilt(tilted: Tilted, values: Tokens, mean: float) -> float:
    """The tilt that gives this mean; 0 if the mean is lower without any."""

    def excess(theta: float) -> float:
        return float(tilted(theta)[0] @ values) - mean

    if excess(0) >= 0:
        return 0.0
    from scipy.optimize import brentq  # noqa: PLC0415 - takes long to load

    return float(brentq(excess, 0, MOST_TILT)) if excess(MOST_TILT) > 0 else MOST_TILT


@lru_cache(maxsize=16)
def _one_token(share: float) -> npt.NDArray[np.float64]:
    """The chance of each score of one token."""
    chances = np.ones(1)
    for weight in WEIGHTS:
        bit = np.zeros(weight + 1)
        bit[[0, -1]] = 1 - share, share
        chances = np.convolve(chances, bit)
    return read_only(chances)


def ngrams_of(tokens: Sequence[int]) -> Tokens:
    """The n-grams (N, CONTEXT + 1) of a text, each context once: the sampler marks no other."""
    ids = np.asarray(tokens, np.int64)
    if len(ids) <= CONTEXT:
        return np.empty((0, CONTEXT + 1), np.int64)
    ngrams = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
    _, first = np.unique(ngrams[:, :CONTEXT], axis=0, return_index=True)
    return ngrams[np.sort(first)]


@lru_cache(maxsize=16)
def _all_keys(secret: bytes) -> Hashes:
    """(VARIANTS, DEPTH); under 2^63, because transformers holds them in signed integers."""
    stream = np.frombuffer(keystream(secret, "text keys", 8 * VARIANTS * DEPTH), "<u8")
    return read_only((stream >> np.uint64(1)).reshape(VARIANTS, DEPTH))


@lru_cache(maxsize=16)
def _table(secret: bytes) -> Bits:
    stream = np.frombuffer(keystream(secret, "text table", TABLE // 8 + 1), np.uint8)
    return read_only(np.unpackbits(stream)[:TABLE])

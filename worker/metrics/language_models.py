"""How well a language model predicts held-out documents.

Each takes one number for each document, (N,), and divides sums, so that a document weighs as much
as it is long and the documents can be resampled.
"""

import math

import numpy as np
import numpy.typing as npt

from db.errors import NonFinite, Refused
from worker.metrics.samples import Values

Counts = npt.NDArray[np.integer]  # (N,)


def loss(nll: Values, tokens: Counts) -> float:
    """Negative log-likelihood of a token, in nats; lower is better.

    `nll` is that of each whole document, in nats. Comparable only between models of one tokeniser.
    """
    _check(nll, tokens, "tokens")
    return float(nll.sum() / tokens.sum())


def perplexity(nll: Values, tokens: Counts) -> float:
    """Exp of the loss: as uncertain as a choice among that many tokens; lower is better.

    Comparable only between models of one tokeniser. Infinite where exp overflows.
    """
    try:
        return math.exp(loss(nll, tokens))
    except OverflowError:
        return math.inf


def bits_per_character(nll: Values, characters: Counts) -> float:
    """Bits to encode a character; lower is better. Comparable between tokenisers."""
    _check(nll, characters, "characters")
    return float(nll.sum() / (characters.sum() * math.log(2)))


def _check(nll: Values, counts: Counts, noun: str) -> None:
    if nll.shape != counts.shape or nll.ndim != 1:
        raise Refused(
            f"losses of {len(nll)} documents and {noun} of {len(counts)}",
            remedy="pass one number of each for every document",
        )
    if counts.sum() <= 0 or counts.min() < 0:
        raise Refused(f"{len(nll)} documents hold no {noun}", remedy="use longer documents")
    if not np.isfinite(nll).all():
        raise NonFinite(
            "a document's loss is NaN or infinite", remedy="check the model and the document"
        )

"""How each number of an evaluation follows from resampled items, so that the gate can decide by it.

The number itself is the recorded one; resampling says how far a difference is from being certain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from db.errors import NonFinite, Refused
from worker.gate import distances, sums
from worker.gate.items import Array, Items
from worker.gate.resampling import Strata
from worker.gate.sums import Statistic, apart
from worker.metrics.catalogue import METRICS
from worker.metrics.memorisation import closer_than_held_out

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Primary:
    """A number as a function of how often each item was drawn; of CLOSER ones, its distance.

    `prepare` takes `arrays`; the items of those in `sets` are drawn, each as one set. Versions
    whose arrays in `same` differ cannot be compared. If those in `paired` differ, item i of one is
    not item i of the other, and there may be more of one.
    """

    prepare: Callable[..., Statistic]
    arrays: tuple[str, ...]
    sets: tuple[str, ...]
    same: tuple[str, ...] = ()
    paired: tuple[str, ...] = ()

    def statistic(self, items: Items) -> Statistic:
        """Prepare the arrays of an evaluation."""
        return self.prepare(*(items.arrays[name] for name in self.arrays))

    def drawn(self, items: Items) -> list[tuple[int, Strata]]:
        """The sets of items that are resampled, by their size and strata.

        Made items are drawn within their asked-for classes, real ones freely.
        """
        labels = items.arrays.get("made_labels")
        return [
            (len(items.arrays[name]), labels if name.startswith("made_") else None)
            for name in self.sets
        ]

    def check(self, items: Items) -> None:
        """Raise `Refused` for arrays that are missing, `NonFinite` for what no number is."""
        for name in (*self.arrays, *self.same, *self.paired):
            if name not in items.arrays:
                raise Refused(f"an evaluation has no array {name!r}", remedy="evaluate again")
            if not np.isfinite(items.arrays[name]).all():
                raise NonFinite(f"{name} contain NaN or infinity", remedy="look at the samples")


def _of(prepare: Callable[..., Statistic], *arrays: str) -> Primary:
    """A number of arrays whose items are all drawn as one set."""
    return Primary(prepare, arrays, arrays[:1])


def _between(prepare: Callable[..., Statistic], name: str) -> Primary:
    """A number of two sets, made and real."""
    both = (f"made_{name}", f"real_{name}")
    return Primary(prepare, both, both)


def _near_real(prepare: Callable[..., Statistic], *names: str, over: str = "") -> Primary:
    """The distance of a number from its value for real items; the items lie along `over`."""
    arrays = tuple(f"{side}_{name}" for side in ("made", "real") for name in names)
    last = over or names[0]
    return Primary(apart(prepare, len(names)), arrays, (f"made_{last}", f"real_{last}"))


def _copies(made: Array, real: Array) -> Statistic:
    return sums.mean(closer_than_held_out(made, real))


def _distinct(n: int) -> Primary:
    return _near_real(partial(sums.distinct, n=n), "word_ids", "words", over="words")


def _of_losses(
    under: str, *, same: tuple[str, ...] = (), paired: tuple[str, ...] = (), **how: Any
) -> Primary:
    """A number of the losses of held-out rows, which each version may cut in its own way."""
    prepare = partial(sums.ratio, **how)
    return Primary(prepare, ("nll", under), ("nll",), same, ("tokens", *paired))


_TOKENIZER = ("tokenizer_sha256",)
_BITS = 1 / np.log(2)  # of a nat
_AGREEMENT = _of(sums.agreement, "made_labels", "made_probabilities")

PRIMARIES: dict[str, Primary] = {
    "fid": _between(distances.frechet, "features"),
    "kid": _between(distances.kernel, "features"),
    "mind": _between(distances.monge, "features"),
    "emd": _between(distances.sliced, "features"),
    "inception_score": _of(sums.inception_score, "made_probabilities"),
    "precision": _between(distances.precision, "features"),
    "recall": _between(distances.recall, "features"),
    "density": _between(distances.density, "features"),
    "coverage": _between(distances.coverage, "features"),
    "ssim_diversity": _near_real(sums.mean, "dissimilarity"),
    "perceptual_diversity": _near_real(distances.pair_distance, "features"),
    "intra_class_distance": _near_real(distances.intra_class_distance, "features", "probabilities"),
    "feature_entropy": _near_real(distances.feature_entropy, "features"),
    "class_kl": _between(sums.class_divergence, "probabilities"),
    "label_agreement": _AGREEMENT,
    "class_agreement": _AGREEMENT,
    "memorisation": Primary(
        _copies, ("made_nearest_train", "real_nearest_train"), ("made_nearest_train",)
    ),
    "made_to_real_accuracy": _of(sums.mean, "real_classified"),
    "loss": _of_losses("tokens", same=_TOKENIZER),
    "perplexity": _of_losses("tokens", same=_TOKENIZER, exponential=True),
    "bits_per_character": _of_losses("characters", paired=_TOKENIZER, scale=_BITS),
    "bits_per_sample": _of_losses("tokens", scale=_BITS),
    "distinct_1": _distinct(1),
    "distinct_2": _distinct(2),
    "distinct_3": _distinct(3),
    "self_bleu": _near_real(sums.mean, "self_bleu"),
    "length": _near_real(sums.mean, "words"),
    "language": _between(sums.histogram_overlap, "languages"),
    "chrf": _of(sums.chrf, "made_chrf"),
    "bleu": _of(sums.bleu, "made_bleu"),
    "rouge_l": _of(sums.mean, "made_rouge_l"),
    "spectral_distance": _between(distances.spectral, "spectra"),
    "pitch_class_histogram": _between(sums.histogram_overlap, "pitch_classes"),
    "interval_histogram": _between(sums.histogram_overlap, "intervals"),
}


def find_primary(name: str) -> Primary:
    """The number of this name. Raises `Refused` with those that there are."""
    if name not in PRIMARIES:
        raise Refused.unknown("metric", name, METRICS, of="the gate")
    return PRIMARIES[name]

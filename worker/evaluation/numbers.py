"""Numbers as they are collected: with interval, real against real, size and direction."""

import math
from typing import Any

from worker.evaluation.protocol import Number
from worker.metrics.bootstrap import Interval

RESAMPLES = 200  # where a resample costs more than a mean

# `closer`: to real data's own value, as too much is no better than too little
BETTER = {
    **dict.fromkeys(("fid", "kid", "mind", "emd", "class_kl", "memorisation"), "lower"),
    **dict.fromkeys(("precision", "recall", "density", "coverage", "inception_score"), "higher"),
    **dict.fromkeys(("label_agreement", "class_agreement", "made_to_real_accuracy"), "higher"),
    **dict.fromkeys(("ssim_diversity", "perceptual_diversity", "intra_class_distance"), "closer"),
    "feature_entropy": "closer",
    **dict.fromkeys(("loss", "perplexity", "bits_per_character", "bits_per_sample"), "lower"),
    **dict.fromkeys(("distinct_1", "distinct_2", "distinct_3", "self_bleu", "length"), "closer"),
    **dict.fromkeys(("chrf", "bleu", "rouge_l"), "higher"),
    **dict.fromkeys(("pitch_class_histogram", "interval_histogram"), "higher"),
    "spectral_distance": "lower",
}

# between 0 and 1; the shift of a bootstrap interval could leave that range
SHARES = {
    *("precision", "recall", "coverage", "label_agreement", "class_agreement"),
    *("made_to_real_accuracy", "distinct_1", "distinct_2", "distinct_3"),
}


class Numbers:
    """The numbers of an evaluation, and why others are left out."""

    def __init__(self) -> None:
        self.found: dict[str, Number] = {}
        self.left_out: dict[str, str] = {}

    def add(self, name: str, interval: Interval, *, n: int, real: float | None = None) -> None:
        """Add a number; one that is not finite is left out, because JSON cannot hold it."""
        if not all(map(math.isfinite, interval)):
            self.left_out[name] = f"it is {interval.value} here"
            return
        known = real if real is not None and math.isfinite(real) else None
        value, low, high = map(float, interval)
        if name in SHARES:
            low, high = max(low, 0.0), min(high, 1.0)
        # by rounding, the interval of equal resamples may miss the value
        self.found[name] = Number(value, min(low, value), max(high, value), known, n, BETTER[name])

    def leave_out(self, reason: str, *names: str) -> None:
        """Say why numbers are missing."""
        self.left_out |= dict.fromkeys(names, reason)

    @property
    def data(self) -> dict[str, Any]:
        """As the record keeps them, by name."""
        return {name: number._asdict() for name, number in sorted(self.found.items())}

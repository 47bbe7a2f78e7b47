"""Evaluations to decide about: made of drawn numbers, so that the truth is known."""

import numpy as np

from worker.gate.items import Items
from worker.gate.policy import Policy

WIDTH = 6
REAL = np.random.default_rng(99).normal(size=(400, WIDTH)).astype(np.float32)


def images(seed, *, count=400, shift=0.0, numbers=None, protocol="p"):
    """Made features whose mean is `shift` away from the real ones'."""
    made = np.random.default_rng(seed).normal(shift, size=(count, WIDTH)).astype(np.float32)
    return Items({"made_features": made, "real_features": REAL}, numbers or {}, protocol)


def texts(seed, *, count=300, better_by=0.0, protocol="p"):
    """Documents with the same lengths and difficulty for every seed, and noise of a version."""
    fixed = np.random.default_rng(5)
    tokens = fixed.integers(20, 200, count)
    hardness = fixed.normal(2.0, 0.4, count)
    own = np.random.default_rng(seed).normal(-better_by, 0.05, count)
    return Items({"nll": tokens * (hardness + own), "tokens": tokens}, {}, protocol)


def classes(seed, *, count=1000, right=0.8, protocol="p"):
    """Asked-for labels in equal shares, of which the judge sees a share as asked for."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    seen = np.where(random.random(count) < right, labels, (labels + 1) % 10)
    return Items({"made_labels": labels, "made_probabilities": np.eye(10)[seen]}, {}, protocol)


def policy(metric, *, resamples=200, guard=(), training_sd=None, **primary):
    return Policy.model_validate(
        {
            "primary": {"metric": metric, **primary},
            "guard": list(guard),
            "noise": {"training_sd": training_sd},
            "resamples": resamples,
        }
    )

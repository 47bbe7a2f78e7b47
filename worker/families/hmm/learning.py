"""Expectation maximisation of a hidden Markov model (Baum-Welch), with a prior.

The weights are the E-step's expected counts of initial states, transitions and emissions. The
M-step adds the prior's pseudo-counts and normalises, so the likelihood times the prior's density
never falls (Dempster, Laird, Rubin 1977). All numbers are float64.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from worker.families.hmm.chain import Chain, expect, forward
from worker.families.hmm.emissions import Emissions

STEPS_AT_ONCE = 2**15  # observations in memory
TRIAL_STEPS = 10  # of EM, for each random initialisation


@dataclass(frozen=True)
class Counts:
    """Expected sufficient statistics: `initial` (K,), `transitions` (K, K), `emissions` (K, W)."""

    initial: Tensor
    transitions: Tensor
    emissions: Tensor

    def plus(self, other: "Counts") -> "Counts":
        """The sum."""
        return Counts(
            self.initial + other.initial,
            self.transitions + other.transitions,
            self.emissions + other.emissions,
        )

    def times(self, factor: Tensor | float) -> "Counts":
        """The counts scaled."""
        return Counts(self.initial * factor, self.transitions * factor, self.emissions * factor)

    @property
    def size(self) -> Tensor:
        """The number of transitions counted."""
        return self.transitions.sum()


@dataclass(frozen=True)
class Model:
    """The distributions that follow from counts and a prior: the M-step."""

    counts: Counts
    kind: Emissions
    prior: float

    @cached_property
    def chain(self) -> Chain:
        """Equations 40a and 40b with pseudo-counts."""
        initial = self.counts.initial + self.prior
        transitions = self.counts.transitions + self.prior
        return Chain(initial / initial.sum(), transitions / transitions.sum(-1, keepdim=True))

    @cached_property
    def natural(self) -> Tensor:
        """The emissions' natural parameters (K, W)."""
        return self.kind.natural(self.emissions)

    @cached_property
    def emissions(self) -> Tensor:
        """The emissions' statistics (K, W), including the prior's."""
        return self.counts.emissions + self._pseudo

    @property
    def log_prior(self) -> Tensor:
        """The logarithm of the prior's density, up to a constant."""
        chain = self.chain.initial.log().sum() + self.chain.transitions.log().sum()
        return self.prior * chain + (self.natural @ self._pseudo).sum()

    @property
    def _pseudo(self) -> Tensor:
        return self.kind.pseudo(self.prior).to(self.counts.emissions.device)


@dataclass(frozen=True)
class Expectation:
    """The E-step of a model on sequences with `steps` observations in all."""

    counts: Counts
    log_likelihood: Tensor
    steps: Tensor


def expectation(model: Model, data: Tensor, *, rows: int = 0) -> Expectation:
    """The E-step on sequences (N, T) or (N, T, D), `rows` at once; 0: as many as fit."""
    parts = [
        _expectation(model, part) for part in torch.split(data, rows or rows_at_once(data.shape[1]))
    ]
    total = parts[0]
    for part in parts[1:]:
        total = Expectation(
            total.counts.plus(part.counts),
            total.log_likelihood + part.log_likelihood,
            total.steps + part.steps,
        )
    return total


def rows_at_once(steps: int) -> int:
    """How many sequences of this length are read at once."""
    return max(STEPS_AT_ONCE // steps, 1)


def log_likelihoods(model: Model, data: Tensor) -> Tensor:
    """Log P(observation | those before it), (N, T); 0 for missing ones."""
    b, log_factor = model.kind.likelihoods(model.natural, data)
    return (forward(model.chain, b).evidence.log() + log_factor).T


def initialise(
    data: Tensor, kind: Emissions, *, states: int, prior: float, restarts: int, seed: int
) -> Counts:
    """The likeliest of some random initialisations after a few EM steps on part of the data.

    A single one is returned untrained.
    """
    # drawn on the CPU, so that all devices start with the same counts
    generator = torch.Generator().manual_seed(seed)
    part = data[: rows_at_once(data.shape[1])]
    candidates = [_random_counts(part, kind, states, generator) for _ in range(restarts)]
    if restarts == 1:
        return candidates[0]
    trials = [_try_out(Model(counts, kind, prior), part) for counts in candidates]
    return max(trials, key=lambda trial: trial[0])[1]


def _try_out(model: Model, data: Tensor) -> tuple[float, Counts]:
    """The penalised log-likelihood after a few EM steps, and the counts."""
    for _ in range(TRIAL_STEPS):
        model = Model(expectation(model, data).counts, model.kind, model.prior)
    return float(expectation(model, data).log_likelihood + model.log_prior), model.counts


def _expectation(model: Model, data: Tensor) -> Expectation:
    b, log_factor = model.kind.likelihoods(model.natural, data)
    known = model.kind.known(data)
    filtered = forward(model.chain, b)
    expected = expect(model.chain, b, known, filtered)
    counts = Counts(
        expected.posteriors[0].sum(0),
        expected.transitions,
        model.kind.statistics(data, expected.posteriors),
    )
    return Expectation(counts, filtered.evidence.log().sum() + log_factor.sum(), known.sum())


def _random_counts(
    data: Tensor, kind: Emissions, states: int, generator: torch.Generator
) -> Counts:
    moves = torch.rand(states, states, generator=generator, dtype=torch.float64).to(data.device)
    return Counts(
        torch.full_like(moves[0], len(data) / states),
        moves * (len(data) * data.shape[1] / moves.sum()),
        kind.initial(data, states, generator),
    )

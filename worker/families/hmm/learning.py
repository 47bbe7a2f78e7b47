"""Expectation maximisation of a hidden Markov model (Baum-Welch), with a prior.

What is learnt are the counts that the E-step expects: how often sequences begin in each state, move
from one to another, and what is emitted there. The M-step turns them into distributions with the
prior's pseudo-counts added, so what never falls is the likelihood times the prior's density
(Dempster, Laird, Rubin 1977). All numbers are float64.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from worker.families.hmm.chain import Chain, expect, forward
from worker.families.hmm.emissions import Emissions

PART = 2**15  # steps of sequences that are in memory at once
TRIAL_STEPS = 10  # of expectation maximisation, for each random beginning


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
        """All of them scaled."""
        return Counts(self.initial * factor, self.transitions * factor, self.emissions * factor)

    @property
    def size(self) -> Tensor:
        """How many moves they count."""
        return self.transitions.sum()


@dataclass(frozen=True)
class Model:
    """The distributions that follow from counts and a prior: the M-step."""

    counts: Counts
    kind: Emissions
    prior: float

    @cached_property
    def chain(self) -> Chain:
        """Equations 40a and 40b, with pseudo-counts."""
        initial = self.counts.initial + self.prior
        transitions = self.counts.transitions + self.prior
        return Chain(initial / initial.sum(), transitions / transitions.sum(-1, keepdim=True))

    @cached_property
    def natural(self) -> Tensor:
        """The emissions' natural parameters (K, W)."""
        return self.kind.natural(self.emissions)

    @cached_property
    def emissions(self) -> Tensor:
        """The emissions' statistics (K, W), the prior's among them."""
        return self.counts.emissions + self._pseudo

    @property
    def log_prior(self) -> Tensor:
        """The logarithm of the prior's density, up to a constant."""
        of_chain = self.chain.initial.log().sum() + self.chain.transitions.log().sum()
        return self.prior * of_chain + (self.natural @ self._pseudo).sum()

    @property
    def _pseudo(self) -> Tensor:
        return self.kind.pseudo(self.prior).to(self.counts.emissions.device)


@dataclass(frozen=True)
class Expectation:
    """The E-step of a model on some sequences of `steps` observations together."""

    counts: Counts
    log_likelihood: Tensor
    steps: Tensor


def expectation(model: Model, data: Tensor, *, rows: int = 0) -> Expectation:
    """Read all sequences, (N, T) or (N, T, D), so many `rows` at once; 0: by `rows_of`."""
    sequences = torch.split(data, rows or rows_of(data.shape[1]))
    parts = [_expectation(model, part) for part in sequences]
    total = parts[0]
    for part in parts[1:]:
        total = Expectation(
            total.counts.plus(part.counts),
            total.log_likelihood + part.log_likelihood,
            total.steps + part.steps,
        )
    return total


def rows_of(steps: int) -> int:
    """How many sequences of so many steps are read at once."""
    return max(PART // steps, 1)


def log_likelihoods(model: Model, data: Tensor) -> Tensor:
    """(N, T): of each observation given those before it in its sequence; 0 of a missing one."""
    b, divided = model.kind.likelihoods(model.natural, data)
    return (forward(model.chain, b).chances.log() + divided).T


def begin(
    data: Tensor, kind: Emissions, *, states: int, prior: float, restarts: int, seed: int
) -> Counts:
    """The likeliest of some random beginnings, each after a few steps on a part of the data.

    One alone is given as it is.
    """
    # drawn on the CPU, so that every device begins alike
    generator = torch.Generator().manual_seed(seed)
    part = data[: rows_of(data.shape[1])]
    guesses = [_guess(part, kind, states, generator) for _ in range(restarts)]
    if restarts == 1:
        return guesses[0]
    tried = [_tried(Model(guess, kind, prior), part) for guess in guesses]
    return max(tried, key=lambda one: one[0])[1]


def _tried(model: Model, data: Tensor) -> tuple[float, Counts]:
    """What a beginning's penalised log-likelihood is after a few steps, and its counts there."""
    for _ in range(TRIAL_STEPS):
        model = Model(expectation(model, data).counts, model.kind, model.prior)
    return float(expectation(model, data).log_likelihood + model.log_prior), model.counts


def _expectation(model: Model, data: Tensor) -> Expectation:
    b, divided = model.kind.likelihoods(model.natural, data)
    known = model.kind.known(data)
    filtered = forward(model.chain, b)
    expected = expect(model.chain, b, known, filtered)
    counts = Counts(
        expected.posteriors[0].sum(0),
        expected.transitions,
        model.kind.statistics(data, expected.posteriors),
    )
    return Expectation(counts, filtered.chances.log().sum() + divided.sum(), known.sum())


def _guess(data: Tensor, kind: Emissions, states: int, generator: torch.Generator) -> Counts:
    moves = torch.rand(states, states, generator=generator, dtype=torch.float64).to(data.device)
    return Counts(
        torch.full_like(moves[0], len(data) / states),
        moves * (len(data) * data.shape[1] / moves.sum()),
        kind.guess(data, states, generator),
    )

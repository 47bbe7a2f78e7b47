"""Emission distributions: categorical over tokens, or Gaussian over vectors; exponential families.

`statistics` (K, width) are expected sufficient statistics. The M-step, `natural`, turns them into
natural parameters: the log-likelihood of an observation in a state is the inner product of its
features and the state's row. The prior adds the statistics of pseudo-observations, `pseudo`
(width,), to each state's.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

TINY = 1e-300  # the least divisor
MIN_SQUARED_DISTANCE = 1e-9  # so that k-means++ can choose even if all vectors are equal


class Emissions(Protocol):
    """One kind of emission; batches are (N, T) or (N, T, D), results have time first."""

    width: int

    def pseudo(self, prior: float) -> Tensor:
        """The statistics of the prior's pseudo-observations, float64 (width,)."""

    def natural(self, statistics: Tensor) -> Tensor:
        """The M-step: natural parameters (K, width) from statistics that include the prior's."""

    def known(self, data: Tensor) -> Tensor:
        """(T, N): 1 for an observation, 0 for a missing one."""

    def predicted(self, data: Tensor) -> Tensor:
        """Whether each observation (N, T) counts in the validation loss."""

    def likelihoods(self, natural: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Likelihoods (T, N, K) up to a factor per observation, and its logarithm (T, N)."""

    def statistics(self, data: Tensor, posteriors: Tensor) -> Tensor:
        """Expected statistics (K, width), given each observation's P(state), (T, N, K)."""

    def initial(self, data: Tensor, states: int, generator: torch.Generator) -> Tensor:
        """Random initial statistics (K, width)."""


class Discrete:
    """Tokens 0 to V - 1, with one-hot features; `~t` is also token t; V (or `~V`) is missing."""

    def __init__(self, vocabulary: int) -> None:
        self.width = vocabulary

    def pseudo(self, prior: float) -> Tensor:
        """Counts of a symmetric Dirichlet prior with concentration 1 + `prior`."""
        return torch.full((self.width,), prior, dtype=torch.float64)

    def natural(self, statistics: Tensor) -> Tensor:
        """Log B, with normalised rows (equation 40c)."""
        return (statistics / statistics.sum(-1, keepdim=True)).log()

    def known(self, data: Tensor) -> Tensor:
        """(T, N)."""
        return (self._ids(data) < self.width).T.double()

    def predicted(self, data: Tensor) -> Tensor:
        """Tokens that are not negative."""
        return data >= 0

    def likelihoods(self, natural: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of B, looked up; the factor is 1."""
        table = torch.cat((natural.exp().T, natural.new_ones(1, len(natural))))  # (V + 1, K)
        b = table[self._ids(data).T]  # (T, N, K)
        return b, b.new_zeros(b.shape[:2])

    def statistics(self, data: Tensor, posteriors: Tensor) -> Tensor:
        """Expected counts of each token in each state."""
        counts = posteriors.new_zeros(self.width + 1, posteriors.shape[-1])
        counts.index_add_(0, self._ids(data).T.flatten(), posteriors.flatten(0, 1))
        return counts[:-1].T

    def initial(self, data: Tensor, states: int, generator: torch.Generator) -> Tensor:
        """The data's token counts, each divided among the states at random."""
        counts = torch.bincount(self._ids(data).flatten(), minlength=self.width + 1)[:-1]
        # to the fourth power: EM is slow to separate nearly equal states
        shares = torch.rand(states, self.width, generator=generator, dtype=torch.float64) ** 4
        return counts * (shares / shares.sum(0)).to(data.device)

    @staticmethod
    def _ids(data: Tensor) -> Tensor:
        return torch.maximum(data, ~data)


class Gaussian:
    """Vectors of D numbers with diagonal covariance; NaN is missing.

    Features are (1, x, x^2). Variances are at least `floor`: clamping each dimension gives the
    constrained maximum, so the likelihood still never falls.
    """

    def __init__(self, dimensions: int, *, floor: float) -> None:
        self.dimensions, self.floor = dimensions, floor
        self.width = 1 + 2 * dimensions

    def pseudo(self, prior: float) -> Tensor:
        """`prior` vectors of mean 0 and variance 1, those of the standardised data."""
        zeros, ones = [0.0] * self.dimensions, [prior] * self.dimensions
        return torch.tensor([prior, *zeros, *ones], dtype=torch.float64)

    def moments(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, each (K, D)."""
        count, first, second = torch.split(statistics, [1, self.dimensions, self.dimensions], -1)
        mean = first / count.clamp(min=TINY)
        variance = second / count.clamp(min=TINY) - mean.square()
        return mean, variance.clamp(min=self.floor)

    def natural(self, statistics: Tensor) -> Tensor:
        """(minus log normaliser, mean / variance, -1 / (2 variance))."""
        mean, variance = self.moments(statistics)
        constant = -0.5 * (mean.square() / variance + (2 * math.pi * variance).log())
        return torch.cat((constant.sum(-1, keepdim=True), mean / variance, -0.5 / variance), -1)

    def known(self, data: Tensor) -> Tensor:
        """(T, N)."""
        return self.predicted(data).T.double()

    def predicted(self, data: Tensor) -> Tensor:
        """All that are not missing."""
        return ~data[..., 0].isnan()

    def likelihoods(self, natural: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Each observation's densities are divided by the largest, as they are unbounded."""
        logs = self._features(data) @ natural.T  # (T, N, K)
        greatest = logs.amax(-1)
        return (logs - greatest[..., None]).exp(), greatest

    def statistics(self, data: Tensor, posteriors: Tensor) -> Tensor:
        """Expected counts, sums and sums of squares."""
        return posteriors.flatten(0, 1).T @ self._features(data).flatten(0, 1)

    def initial(self, data: Tensor, states: int, generator: torch.Generator) -> Tensor:
        """Means by k-means++ (Arthur, Vassilvitskii 2007), and the variance around them."""
        seen = data.double().flatten(0, 1).cpu()
        seen = seen[~seen[:, 0].isnan()]  # (M, D)
        first = torch.randint(len(seen), (1,), generator=generator)
        means, rest = seen[first], (seen - seen[first]).square()  # (k, D), (M, D)
        for _ in range(states - 1):
            far = rest.sum(-1) + MIN_SQUARED_DISTANCE
            one = seen[torch.multinomial(far, 1, generator=generator)]
            means = torch.cat((means, one))
            nearer = (seen - one).square()
            rest = torch.where((nearer.sum(-1) < rest.sum(-1))[:, None], nearer, rest)
        second = means.square() + rest.mean(0)
        statistics = torch.cat((torch.ones(states, 1), means, second), -1)
        return (statistics * (len(seen) / states)).to(data.device)

    def _features(self, data: Tensor) -> Tensor:
        """(T, N, 1 + 2 D), zeros if missing."""
        x = data.double().transpose(0, 1)
        features = torch.cat((torch.ones_like(x[..., :1]), x, x.square()), -1)
        return features.nan_to_num(0.0) * ~x[..., :1].isnan()

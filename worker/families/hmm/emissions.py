"""What states emit: tokens, or vectors of numbers. Both are exponential families.

`statistics` (K, width) are expected sufficient statistics, of which the M-step makes the likeliest
distributions, and `natural` gives their natural parameters: the log-likelihood of an observation
in a state is the product of its features and of that state's row. A prior is statistics of
observations that nobody made, `pseudo` (width,), added to each state's.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

TINY = 1e-300  # the least that is divided by
NEAR = 1e-9  # a squared distance that lets even a copy of a mean be chosen, where all are copies


class Emissions(Protocol):
    """One kind of emission; batches are (N, T) or (N, T, D), the results have time first."""

    width: int

    def pseudo(self, prior: float) -> Tensor:
        """The prior's statistics, float64 (width,)."""

    def natural(self, statistics: Tensor) -> Tensor:
        """The M-step: natural parameters (K, width) of what is likeliest, the prior included."""

    def known(self, data: Tensor) -> Tensor:
        """(T, N): 1 for an observation, 0 for a missing one."""

    def judged(self, data: Tensor) -> Tensor:
        """Whether each observation (N, T) is one of those that validation is about."""

    def likelihoods(self, natural: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N, K), and the logarithm (T, N) of what they were divided by."""

    def statistics(self, data: Tensor, posteriors: Tensor) -> Tensor:
        """(K, width), given P(state) (T, N, K) at each observation."""

    def guess(self, data: Tensor, states: int, generator: torch.Generator) -> Tensor:
        """Statistics (K, width) to begin with, at random."""


class Discrete:
    """Tokens 0 to V - 1, features one-hot; `~t` is token t too, and V (or `~V`) a missing one."""

    def __init__(self, vocabulary: int) -> None:
        self.width = vocabulary

    def pseudo(self, prior: float) -> Tensor:
        """As many counts of each token: a symmetric Dirichlet prior of 1 + `prior`."""
        return torch.full((self.width,), prior, dtype=torch.float64)

    def natural(self, statistics: Tensor) -> Tensor:
        """Logarithms of B, rows normalised (equation 40c)."""
        return (statistics / statistics.sum(-1, keepdim=True)).log()

    def known(self, data: Tensor) -> Tensor:
        """(T, N)."""
        return (self._ids(data) < self.width).T.double()

    def judged(self, data: Tensor) -> Tensor:
        """Those that are not negative."""
        return data >= 0

    def likelihoods(self, natural: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of B's transpose, looked up."""
        table = torch.cat((natural.exp().T, natural.new_ones(1, len(natural))))  # (V + 1, K)
        b = table[self._ids(data).T]  # (T, N, K)
        return b, b.new_zeros(b.shape[:2])

    def statistics(self, data: Tensor, posteriors: Tensor) -> Tensor:
        """How often each state is expected to emit each token."""
        counts = posteriors.new_zeros(self.width + 1, posteriors.shape[-1])
        counts.index_add_(0, self._ids(data).T.flatten(), posteriors.flatten(0, 1))
        return counts[:-1].T

    def guess(self, data: Tensor, states: int, generator: torch.Generator) -> Tensor:
        """The tokens' counts in the data, each parted among the states at random."""
        counts = torch.bincount(self._ids(data).flatten(), minlength=self.width + 1)[:-1]
        # to the fourth power: from nearly equal states EM takes long to tell them apart
        shares = torch.rand(states, self.width, generator=generator, dtype=torch.float64) ** 4
        return counts * (shares / shares.sum(0)).to(data.device)

    @staticmethod
    def _ids(data: Tensor) -> Tensor:
        return torch.maximum(data, ~data)


class Gaussian:
    """Vectors of D numbers, NaN where missing, with diagonal covariance.

    Features are (1, x, x^2). No variance is under `floor`, which in one dimension at a time is the
    likeliest that is allowed, so that the likelihood still never falls.
    """

    def __init__(self, dimensions: int, *, floor: float) -> None:
        self.dimensions, self.floor = dimensions, floor
        self.width = 1 + 2 * dimensions

    def pseudo(self, prior: float) -> Tensor:
        """As many vectors of mean 0 and variance 1, as the data's own are once scaled."""
        zeros, ones = [0.0] * self.dimensions, [prior] * self.dimensions
        return torch.tensor([prior, *zeros, *ones], dtype=torch.float64)

    def moments(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, each (K, D)."""
        count, first, second = torch.split(statistics, [1, self.dimensions, self.dimensions], -1)
        mean = first / count.clamp(min=TINY)
        variance = second / count.clamp(min=TINY) - mean.square()
        return mean, variance.clamp(min=self.floor)

    def natural(self, statistics: Tensor) -> Tensor:
        """(log normaliser, mean / variance, -1 / (2 variance))."""
        mean, variance = self.moments(statistics)
        constant = -0.5 * (mean.square() / variance + (2 * math.pi * variance).log())
        return torch.cat((constant.sum(-1, keepdim=True), mean / variance, -0.5 / variance), -1)

    def known(self, data: Tensor) -> Tensor:
        """(T, N)."""
        return self.judged(data).T.double()

    def judged(self, data: Tensor) -> Tensor:
        """All that are there."""
        return ~data[..., 0].isnan()

    def likelihoods(self, natural: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Divided by the greatest of each observation, for densities have no bounds."""
        logs = self._features(data) @ natural.T  # (T, N, K)
        greatest = logs.amax(-1)
        return (logs - greatest[..., None]).exp(), greatest

    def statistics(self, data: Tensor, posteriors: Tensor) -> Tensor:
        """Expected counts, sums and sums of squares."""
        return posteriors.flatten(0, 1).T @ self._features(data).flatten(0, 1)

    def guess(self, data: Tensor, states: int, generator: torch.Generator) -> Tensor:
        """Means by k-means++ (Arthur, Vassilvitskii 2007), and the variance that they leave."""
        seen = data.double().flatten(0, 1).cpu()
        seen = seen[~seen[:, 0].isnan()]  # (M, D)
        first = torch.randint(len(seen), (1,), generator=generator)
        means, rest = seen[first], (seen - seen[first]).square()  # (k, D), (M, D)
        for _ in range(states - 1):
            far = rest.sum(-1) + NEAR
            one = seen[torch.multinomial(far, 1, generator=generator)]
            means = torch.cat((means, one))
            nearer = (seen - one).square()
            rest = torch.where((nearer.sum(-1) < rest.sum(-1))[:, None], nearer, rest)
        second = means.square() + rest.mean(0)
        statistics = torch.cat((torch.ones(states, 1), means, second), -1)
        return (statistics * (len(seen) / states)).to(data.device)

    def _features(self, data: Tensor) -> Tensor:
        """(T, N, 1 + 2 D), zeros where missing."""
        x = data.double().transpose(0, 1)
        features = torch.cat((torch.ones_like(x[..., :1]), x, x.square()), -1)
        return features.nan_to_num(0.0) * ~x[..., :1].isnan()

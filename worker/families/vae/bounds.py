"""The evidence lower bound and related quantities as pure functions, all in nats."""

import math

import torch
from torch import Tensor


def kl_to_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp log_variance) || N(0, 1)) per latent dimension, (B, latent).

    Kingma and Welling 2013, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def with_free_bits(kl: Tensor, free: float) -> Tensor:
    """The KL term with free bits: sum over j of max(free, mean over the batch of kl_j).

    Kingma et al. 2016, arXiv:1606.04934, eq. 15, each latent dimension j a group of its own.
    """
    return kl.mean(0).clamp(min=free).sum()


def log_normal(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log density of codes (B, latent) under independent normals, (B,)."""
    square = (value - mean).square() * torch.exp(-log_variance)
    return -0.5 * (square + log_variance + math.log(2 * math.pi)).sum(1)


def log_weight(log_likelihood: Tensor, code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log weight log p(x|z) + log p(z) - log q(z|x) of codes drawn from q, (B,).

    Its expectation is the evidence lower bound; `log_likelihood` is log p(x|z), (B,).
    """
    zero = torch.zeros_like(code)
    prior, posterior = log_normal(code, zero, zero), log_normal(code, mean, log_variance)
    return log_likelihood + prior - posterior


def importance_bound(log_weights: Tensor) -> Tensor:
    """The bound log (1/K) sum over k of w_k, from log weights (K, B) to (B,).

    Burda, Grosse and Salakhutdinov 2015, arXiv:1509.00519, eq. 8: the evidence lower bound if
    K = 1, and never looser in expectation with larger K.
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))

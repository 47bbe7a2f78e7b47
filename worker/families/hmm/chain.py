"""The hidden chain: scaled forward and backward passes over batches of sequences (Rabiner 1989).

K states, N sequences of T steps, time first. `b` (T, N, K) is the likelihood of each observation in
each state, all ones if it is missing. Float64, so that rounding does not hide EM's monotonicity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chain:
    """Probabilities of first states, `initial` (K,), and `transitions` (K, K); rows sum to 1."""

    initial: Tensor
    transitions: Tensor


@dataclass(frozen=True)
class Filtered:
    """`states` (T, N, K): P(state at t | observations to t); `evidence` (T, N): P(observation t |
    those before it).
    """

    states: Tensor
    evidence: Tensor


@dataclass(frozen=True)
class Expected:
    """`posteriors` (T, N, K): P(state at t | the whole sequence); `transitions` (K, K): expected
    counts over all sequences.
    """

    posteriors: Tensor
    transitions: Tensor


def forward(chain: Chain, b: Tensor) -> Filtered:
    """The scaled forward variables (equations 91 and 92), normalised at each step."""
    states, evidence = list[Tensor](), list[Tensor]()
    predicted = chain.initial.expand_as(b[0])  # (N, K): P(state at t | observations before t)
    for likelihoods in b.unbind():
        joint = predicted * likelihoods
        evidence.append(joint.sum(-1, keepdim=True))
        states.append(joint / evidence[-1])
        predicted = states[-1] @ chain.transitions
    return Filtered(torch.stack(states), torch.stack(evidence)[..., 0])


def expect(chain: Chain, b: Tensor, known: Tensor, filtered: Filtered) -> Expected:
    """The scaled backward pass, and the expectations of equations 27 and 37 (scaled: 108, 109).

    `known` (T, N) is 0 if an observation is missing: transitions into such steps are not counted.
    """
    scaled = (b / filtered.evidence[..., None]).unbind()
    betas = [torch.ones_like(b[0])]  # scaled, from the last step to the first
    arrivals = list[Tensor]()  # b beta / evidence
    for likelihoods in scaled[:0:-1]:
        arrivals.append(likelihoods * betas[-1])
        betas.append(arrivals[-1] @ chain.transitions.T)
    posteriors = filtered.states * torch.stack(betas[::-1])
    if not arrivals:
        return Expected(posteriors, torch.zeros_like(chain.transitions))
    before = filtered.states[:-1].flatten(0, 1)
    after = (torch.stack(arrivals[::-1]) * known[1:, :, None]).flatten(0, 1)
    return Expected(posteriors, chain.transitions * (before.T @ after))

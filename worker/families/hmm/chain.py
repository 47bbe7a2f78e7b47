"""The hidden chain: scaled forward and backward passes over many sequences at once (Rabiner 1989).

K states, N sequences of T steps, time first. `b` (T, N, K) is the likelihood of each observation in
each state, all ones where it is missing. Float64, so that what is proved to rise is seen to rise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chain:
    """Where the chain begins, `initial` (K,), and moves, `transitions` (K, K); rows sum to 1."""

    initial: Tensor
    transitions: Tensor


@dataclass(frozen=True)
class Filtered:
    """`states` (T, N, K): P(state at t | observations to t); `chances` (T, N) of observation t
    given those before it.
    """

    states: Tensor
    chances: Tensor


@dataclass(frozen=True)
class Expected:
    """`posteriors` (T, N, K): P(state at t | all of its sequence); `transitions` (K, K): how often
    each is expected in all sequences together.
    """

    posteriors: Tensor
    transitions: Tensor


def forward(chain: Chain, b: Tensor) -> Filtered:
    """The scaled forward variables (equations 91 and 92): normalised at each step."""
    states, chances = list[Tensor](), list[Tensor]()
    ahead = chain.initial.expand_as(b[0])  # (N, K): P(state at t | observations before t)
    for likelihoods in b.unbind():
        joint = ahead * likelihoods
        chances.append(joint.sum(-1, keepdim=True))
        states.append(joint / chances[-1])
        ahead = states[-1] @ chain.transitions
    return Filtered(torch.stack(states), torch.stack(chances)[..., 0])


def expect(chain: Chain, b: Tensor, known: Tensor, filtered: Filtered) -> Expected:
    """The scaled backward pass, and what equations 27 and 37 expect, scaled by 108 and 109.

    `known` (T, N) is 0 where an observation is missing: moves into such steps are not counted.
    """
    speaking = (b / filtered.chances[..., None]).unbind()
    behind = [torch.ones_like(b[0])]  # beta, scaled, from the last step to the first
    arrivals = list[Tensor]()  # b beta / chance: how the rest speaks for a state, on arrival
    for likelihoods in speaking[:0:-1]:
        arrivals.append(likelihoods * behind[-1])
        behind.append(arrivals[-1] @ chain.transitions.T)
    posteriors = filtered.states * torch.stack(behind[::-1])
    if not arrivals:
        return Expected(posteriors, torch.zeros_like(chain.transitions))
    left = filtered.states[:-1].flatten(0, 1)
    right = (torch.stack(arrivals[::-1]) * known[1:, :, None]).flatten(0, 1)
    return Expected(posteriors, chain.transitions * (left.T @ right))

"""Sampling sequences: text by filtering over the states, numbers by sampling the states.

Both sample from the model's own distribution. A text's next token is drawn given
P(state | tokens so far), so a prompt is treated as the beginning of the text.
"""

import torch
from torch import Tensor

from worker.families.hmm import HmmSampling
from worker.families.hmm.chain import Chain
from worker.networks.network import Draw
from worker.networks.token_choice import choose

NOISE = 1  # the random stream of the emissions' noise; the states use stream 0


class FilterDecoder:
    """A `Decoder` that holds the distribution (B, K) of each slot's next state."""

    context = None

    def __init__(self, chain: Chain, emissions: Tensor, slots: int) -> None:
        """`emissions` (K, V): the probability of each token in each state."""
        self._chain, self._emissions = chain, emissions
        self._predicted = chain.initial.repeat(slots, 1)

    def reset(self, slot: int) -> None:
        """Start a new sequence."""
        self._predicted[slot] = self._chain.initial

    def read(self, tokens: Tensor) -> Tensor:
        """Read one token per slot (B,); return the logits of the next ones, float32 (B, V)."""
        joint = self._predicted * self._emissions.T[tokens]
        self._predicted = (joint / joint.sum(-1, keepdim=True)) @ self._chain.transitions
        return (self._predicted @ self._emissions).log().float()


def sample_vectors(
    chain: Chain, moments: tuple[Tensor, Tensor], first: Tensor, draw: Draw, sampling: HmmSampling
) -> Tensor:
    """Vectors (B, max_tokens, D); the first state is drawn from `first` (B, K).

    `moments` are the states' means and variances, each (K, D).
    """
    mean, variance = moments
    deviation = (variance * sampling.temperature).sqrt()
    all_states = sampling.model_copy(update={"top_k": 0, "top_p": 1.0})
    numbers = draw.uniform(sampling.max_tokens)  # (B, T)
    noise = draw.normal(sampling.max_tokens, mean.shape[1], stream=NOISE)  # (B, T, D)
    vectors, ahead = [], first
    for t in range(sampling.max_tokens):
        state = choose(ahead.log(), numbers[:, t], all_states)  # (B,)
        vectors.append(mean[state] + deviation[state] * noise[:, t])
        ahead = chain.transitions[state]
    return torch.stack(vectors, 1)

"""Making sequences: by the filter over the states for text, by the states themselves for numbers.

Both draw exactly from the model. A text's next token follows from P(state | tokens so far), so that
a prompt is read as the text's own beginning.
"""

import torch
from torch import Tensor

from worker.families.hmm import HmmSampling
from worker.families.hmm.chain import Chain
from worker.networks.network import Draw
from worker.networks.token_choice import choose

NOISE = 1  # the stream of the emissions' normal numbers; the states take stream 0


class FilterDecoder:
    """A `Decoder`: for each slot the distribution (B, K) of the state that comes next."""

    context = None

    def __init__(self, chain: Chain, emissions: Tensor, slots: int) -> None:
        """`emissions` (K, V): the probability of each token in each state."""
        self._chain, self._emissions = chain, emissions
        self._ahead = chain.initial.repeat(slots, 1)

    def reset(self, slot: int) -> None:
        """Begin a sequence."""
        self._ahead[slot] = self._chain.initial

    def read(self, tokens: Tensor) -> Tensor:
        """Each slot's next token (B,): logits of those after it, float32 (B, V)."""
        joint = self._ahead * self._emissions.T[tokens]
        self._ahead = (joint / joint.sum(-1, keepdim=True)) @ self._chain.transitions
        return (self._ahead @ self._emissions).log().float()


def draw_vectors(
    chain: Chain, moments: tuple[Tensor, Tensor], ahead: Tensor, draw: Draw, sampling: HmmSampling
) -> Tensor:
    """Vectors (B, max_tokens, D), whose first state is drawn from `ahead` (B, K).

    `moments` are the states' means and variances, each (K, D).
    """
    mean, variance = moments
    deviation = (variance * sampling.temperature).sqrt()
    all_states = sampling.model_copy(update={"top_k": 0, "top_p": 1.0})
    numbers = draw.uniform(sampling.max_tokens)  # (B, T)
    noise = draw.normal(sampling.max_tokens, mean.shape[1], stream=NOISE)  # (B, T, D)
    made = []
    for t in range(sampling.max_tokens):
        state = choose(ahead.log(), numbers[:, t], all_states)  # (B,)
        made.append(mean[state] + deviation[state] * noise[:, t])
        ahead = chain.transitions[state]
    return torch.stack(made, 1)

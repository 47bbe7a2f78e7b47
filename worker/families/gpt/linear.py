"""Linear layers that can train a low-rank change instead of their weights (LoRA)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Linear):
    """y = W x, or with an adapter y = W x + alpha / r B A x and W frozen.

    Hu et al. 2021, "LoRA", equation 3. An adapter adds `a` (r, in) and `b` (out, r) to the state;
    merging it makes the layer an ordinary one again.
    """

    a: nn.Parameter | None
    b: nn.Parameter | None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.register_parameter("a", None)
        self.register_parameter("b", None)
        self._scale = 0.0

    def adapt(self, rank: int, alpha: float) -> None:
        """Freeze the weights and add an adapter, which is zero at first."""
        self.weight.requires_grad_(False)
        outputs, inputs = self.weight.shape
        self.a = nn.Parameter(self.weight.new_empty(rank, inputs).normal_(std=inputs**-0.5))
        self.b = nn.Parameter(self.weight.new_zeros(outputs, rank))
        self._scale = alpha / rank

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter, if any, to the weights and drop it."""
        if self.a is not None and self.b is not None:
            self.weight += self._scale * self.b @ self.a
            self.a = self.b = None

    def forward(self, input: Tensor) -> Tensor:
        """(.., in) to (.., out)."""
        y = functional.linear(input, self.weight)
        if self.a is None or self.b is None:
            return y
        low = functional.linear(functional.linear(input, self.a), self.b)
        return y + self._scale * low

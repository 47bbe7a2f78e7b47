"""WaveNet's layers, their receptive field, and the position embedding that conditions them."""

from typing import Protocol

import torch
from torch import Tensor, nn

from worker.families.wavenet import WaveNetParams

PARTS = 40  # of a sound that relative position distinguishes, besides the silence after it


class Stack(Protocol):
    """The modules of a WaveNet, from codes to logits."""

    embedding: nn.Embedding  # of codes and `START_CODE`
    plan: nn.Embedding  # of class and relative position, see `plan_index`
    layers: nn.ModuleList  # of `Layer`
    hidden: nn.Conv1d  # 1x1, after the sum of the skip connections
    head: nn.Conv1d  # 1x1


class Layer(nn.Module):
    """z = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h) (equation 3), then 1x1 to x and skip.

    `*` is a causal convolution of two taps, `dilation` apart; h is one-hot, so V h is an embedding.
    """

    def __init__(self, params: WaveNetParams, dilation: int, labels: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.dilated = nn.Conv1d(params.channels, 2 * params.channels, 2, dilation=dilation)
        self.condition = nn.Embedding(max(labels, 1), 2 * params.channels)
        self.residual = nn.Conv1d(params.channels, params.channels, 1, bias=False)
        self.skip = nn.Conv1d(params.channels, params.skip, 1)
        nn.init.zeros_(self.condition.weight)

    def forward(self, x: Tensor, labels: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The residual stream x (B, C, T - dilation), and the last `length` samples of the skip."""
        both = self.dilated(x) + self.condition(labels)[:, :, None]  # (B, 2C, T - dilation)
        filtered, gate = both.chunk(2, dim=1)
        z = torch.tanh(filtered) * torch.sigmoid(gate)
        x = x[:, :, self.dilation :] + self.residual(z)
        return x, self.skip(z[:, :, -length:])


def dilations(params: WaveNetParams) -> list[int]:
    """The layers' dilations from first to last: 1, 2, 4, ... in each stack."""
    return [2**power for power in range(params.dilations)] * params.stacks


def receptive_field(params: WaveNetParams) -> int:
    """The number of samples that a prediction depends on."""
    return sum(dilations(params)) + 1


def plan_index(labels: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
    """The rows of `Stack.plan` for sounds of these classes and lengths at these times."""
    return labels * (PARTS + 1) + (times * PARTS // lengths).clamp(0, PARTS)

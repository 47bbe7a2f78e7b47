"""Incremental WaveNet: one sample per step, with a queue per layer.

Le Paine et al. 2016, arXiv:1611.09482: of the past, a layer of dilation d needs only its input d
steps ago, so it queues its last d inputs, here already multiplied by the older tap. Rows do not
affect one another.
"""

import torch
from torch import Tensor, nn

from worker.families.wavenet.layers import Layer, Stack, plan_index
from worker.feeds.sounds import START_CODE


class Queue:
    """A layer for a batch of rows: its weights as matrices and its last `dilation` inputs."""

    def __init__(self, layer: Layer, rows: int) -> None:
        older, newer = layer.dilated.weight.unbind(2)  # (2C, C) each
        assert layer.dilated.bias is not None  # noqa: S101 - tells mypy what `Conv1d` defaults to
        self.taps = torch.cat((newer, older)).t().contiguous()  # (C, 4C)
        self.residual = layer.residual.weight[:, :, 0].t().contiguous()  # (C, C)
        self.biases = layer.condition.weight + layer.dilated.bias  # (labels, 2C)
        self.bias = self.biases[:1].expand(rows, -1).contiguous()  # (B, 2C)
        self.past = self.bias.new_zeros(layer.dilation, *self.bias.shape)
        self._entries = self.past.unbind()
        self._products = torch.cat((self.bias, self.bias), dim=1)  # buffer of x times both taps
        self._newer, self._older = self._products.chunk(2, dim=1)
        self._both = torch.empty_like(self.bias)
        self._filtered, self._gate = self._both.chunk(2, dim=1)

    def prime(self, x: Tensor, z: Tensor, labels: Tensor, fresh: Tensor) -> Tensor:
        """As `step` after a constant input x; fills the queues of `fresh` rows (B,) with it."""
        self.bias = self.biases[labels]
        torch.mm(x, self.taps, out=self._products)
        before = self._older + self.bias
        self.past[:, fresh] = before[fresh]
        return self._out(x, z, before)

    def step(self, x: Tensor, z: Tensor, time: int) -> Tensor:
        """The residual stream (B, C) after the layer, from x (B, C); writes z (B, C) in place."""
        entry = self._entries[time % len(self._entries)]
        torch.mm(x, self.taps, out=self._products)
        after = self._out(x, z, entry)
        torch.add(self._older, self.bias, out=entry)
        return after

    def _out(self, x: Tensor, z: Tensor, before: Tensor) -> Tensor:
        torch.add(self._newer, before, out=self._both)
        torch.mul(self._filtered.tanh_(), self._gate.sigmoid_(), out=z)
        return torch.addmm(x, z, self.residual)


class Queues:
    """The network for a batch of rows, one sample of each per step."""

    def __init__(self, stack: Stack, rows: int) -> None:
        layers = [*stack.layers]
        self.embedding = stack.embedding.weight
        self.queues = [Queue(layer, rows) for layer in layers]
        # layers write z here side by side, so that all skip connections are one product
        self.gated = self.embedding.new_empty(rows, len(layers) * self.embedding.shape[1])
        self.parts = self.gated.chunk(len(layers), dim=1)
        self.skip = torch.cat([layer.skip.weight[:, :, 0] for layer in layers], 1).t().contiguous()
        self.skip_bias = torch.stack([layer.skip.bias for layer in layers]).sum(0)
        self.hidden, self.head = _matrix(stack.hidden), _matrix(stack.head)
        self.plan = stack.plan.weight
        self.labels = torch.zeros(rows, dtype=torch.int64, device=self.embedding.device)
        self.lengths = torch.ones_like(self.labels)
        self.times = torch.zeros_like(self.labels)  # of the rows' next samples within their sounds
        self.time = 0

    def prime(self, labels: Tensor, lengths: Tensor, fresh: Tensor) -> Tensor:
        """Start the `fresh` rows (B,); return the logits (B, 256) of their first samples.

        `labels` (B,) are the classes of all rows, `lengths` (B,) their sounds' planned samples.
        """
        self.labels, self.lengths = labels, lengths
        self.times = torch.where(fresh, 0, self.times)
        x = self.embedding[START_CODE] + self._position()  # (B, C)
        for queue, z in zip(self.queues, self.parts, strict=True):
            x = queue.prime(x, z, labels, fresh)
        return self._logits()

    def step(self, codes: Tensor) -> Tensor:
        """Logits (B, 256) of the sample after `codes` (B,)."""
        self.times += 1
        x = self.embedding.index_select(0, codes) + self._position()  # (B, C)
        for queue, z in zip(self.queues, self.parts, strict=True):
            x = queue.step(x, z, self.time)
        self.time += 1
        return self._logits()

    def _position(self) -> Tensor:
        return self.plan.index_select(0, plan_index(self.labels, self.times, self.lengths))

    def _logits(self) -> Tensor:
        skipped = torch.addmm(self.skip_bias, self.gated, self.skip).relu_()  # (B, skip)
        hidden = torch.addmm(self.hidden[1], skipped, self.hidden[0]).relu_()
        return torch.addmm(self.head[1], hidden, self.head[0])


def _matrix(layer: nn.Conv1d) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution as a matrix (in, out) and a bias."""
    assert layer.bias is not None  # noqa: S101 - tells mypy what `Conv1d` defaults to
    return layer.weight[:, :, 0].t().contiguous(), layer.bias

"""WaveNet a sample at a time, with queues in place of the receptive field.

Le Paine et al. 2016, arXiv:1611.09482: a layer of dilation d needs its input of d steps ago and
nothing else of the past, so it keeps the last d of them, here already multiplied by the older tap.
A row's numbers depend on its own samples alone.
"""

import torch
from torch import Tensor, nn

from worker.families.wavenet.layers import Layer, Stack, plan_row
from worker.feeds.sounds import START_CODE


class Queue:
    """One layer of some rows: its weights as matrices, and its past, `dilation` entries."""

    def __init__(self, layer: Layer, rows: int) -> None:
        older, newer = layer.dilated.weight.unbind(2)  # (2C, C) each
        assert layer.dilated.bias is not None  # noqa: S101 - tells mypy what `Conv1d` defaults to
        self.taps = torch.cat((newer, older)).t().contiguous()  # (C, 4C)
        self.residual = layer.residual.weight[:, :, 0].t().contiguous()  # (C, C)
        self.biases = layer.condition.weight + layer.dilated.bias  # (labels, 2C)
        self.bias = self.biases[:1].expand(rows, -1).contiguous()  # (B, 2C), the rows' own
        self.past = self.bias.new_zeros(layer.dilation, *self.bias.shape)
        self._slots = self.past.unbind()
        self._made = torch.cat((self.bias, self.bias), dim=1)  # room for x times both taps
        self._newer, self._older = self._made.chunk(2, dim=1)
        self._both = torch.empty_like(self.bias)
        self._filtered, self._gate = self._both.chunk(2, dim=1)

    def begin(self, x: Tensor, z: Tensor, labels: Tensor, fresh: Tensor) -> Tensor:
        """As `step`, where x has come in for ever; `fresh` rows (B,) keep that as their past."""
        self.bias = self.biases[labels]
        torch.mm(x, self.taps, out=self._made)
        before = self._older + self.bias
        self.past[:, fresh] = before[fresh]
        return self._out(x, z, before)

    def step(self, x: Tensor, z: Tensor, time: int) -> Tensor:
        """The stream after this layer, from x (B, C); the gated z (B, C) is written in place."""
        slot = self._slots[time % len(self._slots)]
        torch.mm(x, self.taps, out=self._made)
        after = self._out(x, z, slot)
        torch.add(self._older, self.bias, out=slot)
        return after

    def _out(self, x: Tensor, z: Tensor, before: Tensor) -> Tensor:
        torch.add(self._newer, before, out=self._both)
        torch.mul(self._filtered.tanh_(), self._gate.sigmoid_(), out=z)
        return torch.addmm(x, z, self.residual)


class Queues:
    """The network for some rows, all at their next sample at once."""

    def __init__(self, stack: Stack, rows: int) -> None:
        layers = [*stack.layers]
        self.embedding = stack.embedding.weight
        self.queues = [Queue(layer, rows) for layer in layers]
        # what all layers skip to is one product, of what they write here side by side
        self.gated = self.embedding.new_empty(rows, len(layers) * self.embedding.shape[1])
        self.parts = self.gated.chunk(len(layers), dim=1)
        self.skip = torch.cat([layer.skip.weight[:, :, 0] for layer in layers], 1).t().contiguous()
        self.skip_bias = torch.stack([layer.skip.bias for layer in layers]).sum(0)
        self.hidden, self.head = _matrix(stack.hidden), _matrix(stack.head)
        self.plan = stack.plan.weight
        self.labels = torch.zeros(rows, dtype=torch.int64, device=self.embedding.device)
        self.lengths = torch.ones_like(self.labels)
        self.times = torch.zeros_like(self.labels)  # of the rows' next samples, in their sounds
        self.time = 0

    def begin(self, labels: Tensor, lengths: Tensor, fresh: Tensor) -> Tensor:
        """Logits (B, 256) of a first sample, after nothing.

        `labels` (B,) are the classes of all rows, `lengths` (B,) the samples that their sounds are
        to have; `fresh` (B,) says which of them begin now.
        """
        self.labels, self.lengths = labels, lengths
        self.times = torch.where(fresh, 0, self.times)
        x = self.embedding[START_CODE] + self._planned()  # (B, C)
        for queue, z in zip(self.queues, self.parts, strict=True):
            x = queue.begin(x, z, labels, fresh)
        return self._logits()

    def step(self, codes: Tensor) -> Tensor:
        """Logits (B, 256) of the sample after `codes` (B,)."""
        self.times += 1
        x = self.embedding.index_select(0, codes) + self._planned()  # (B, C)
        for queue, z in zip(self.queues, self.parts, strict=True):
            x = queue.step(x, z, self.time)
        self.time += 1
        return self._logits()

    def _planned(self) -> Tensor:
        return self.plan.index_select(0, plan_row(self.labels, self.times, self.lengths))

    def _logits(self) -> Tensor:
        skipped = torch.addmm(self.skip_bias, self.gated, self.skip).relu_()  # (B, skip)
        hidden = torch.addmm(self.hidden[1], skipped, self.hidden[0]).relu_()
        return torch.addmm(self.head[1], hidden, self.head[0])


def _matrix(layer: nn.Conv1d) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution as a matrix (in, out) and a bias."""
    assert layer.bias is not None  # noqa: S101 - tells mypy what `Conv1d` defaults to
    return layer.weight[:, :, 0].t().contiguous(), layer.bias

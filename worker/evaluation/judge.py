"""The judge: a small network whose features tell made pictures from real ones.

It is trained once on a dataset version, to name the classes if there are labels, else to restore
pictures from few numbers. Same pictures, same device, same weights: bit for bit, whatever the
number of threads.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.device import deterministic
from worker.engine.run import seed_torch
from worker.engine.tensors import write_tensors

Pixels = npt.NDArray[np.uint8]  # (N, H, W, C)
Labels = npt.NDArray[np.int64]  # (N,)
Floats = npt.NDArray[np.float32]
Tick = Callable[[int, int], None]  # how many of how many are done

FEATURES = 64
WIDTHS = (32, 64, 128)  # channels after each halving
SMALLEST = 7  # pixels a side of the last map
STEPS, BATCH, LR = 600, 128, 2e-3
ROWS = 256  # of a forward pass: always as many, so that neighbours do not matter
SEED = 0


class Judge(nn.Module, ABC):
    """From pictures (B, C, H, W) in [-1, 1] to `width` features, and on to `classes` if any."""

    rows: int  # of a forward pass: always as many, so that neighbours do not matter
    width: int
    classes: int
    scale: Tensor  # makes features' mean variance 1

    def __init__(self, width: int, classes: int, *, rows: int) -> None:
        super().__init__()
        self.width, self.classes, self.rows = width, classes, rows
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def features(self, pictures: Tensor) -> Tensor:
        """Features (B, width), not yet divided by `scale`."""

    @abstractmethod
    def judge(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of features; what a judge without classes finds is its own matter."""


class JudgeNetwork(Judge):
    """A judge of our own, which names classes or else restores pictures."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        """`classes` is 0 for a judge that restores pictures."""
        super().__init__(FEATURES, classes, rows=ROWS)
        self.size = (height, width)
        self.channels = channels
        sizes, widths = [self.size], [channels]
        while max(sizes[-1]) > SMALLEST or len(sizes) == 1:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
            widths.append(WIDTHS[min(len(widths), len(WIDTHS)) - 1])
        layers = [_layer(a, b, 2) for a, b in pairwise(widths)]
        self.trunk = nn.Sequential(*layers)
        flat = widths[-1] * math.prod(sizes[-1])
        self.embed = nn.Linear(flat, FEATURES)
        self.head = (
            nn.Linear(FEATURES, classes) if classes else _decoder(flat, widths[::-1], sizes[::-1])
        )

    def features(self, pictures: Tensor) -> Tensor:
        """See `Judge.features`."""
        return cast(Tensor, self.embed(self.trunk(pictures).flatten(1)))

    def judge(self, features: Tensor) -> Tensor:
        """Logits (B, classes), or pictures (B, C, *size)."""
        found = cast(Tensor, self.head(functional.relu(features)))
        return found if self.classes else found[:, :, : self.size[0], : self.size[1]]

    def loss(self, pictures: Tensor, labels: Tensor | None) -> Tensor:
        """Cross-entropy in nats, or the mean squared error of the restored pictures."""
        found = self.judge(self.features(pictures))
        if labels is not None:
            return functional.cross_entropy(found, labels)
        return functional.mse_loss(found, pictures)


class Judged(NamedTuple):
    """What a judge finds in pictures: features (N, D), and probabilities (N, classes) or (N, 0)."""

    features: Floats
    probabilities: Floats

    @property
    def labels(self) -> Labels:
        """The likeliest class of each picture."""
        found: Labels = self.probabilities.argmax(axis=1).astype(np.int64)
        return found


def train(
    pixels: Pixels,
    labels: Labels | None,
    *,
    classes: int,
    device: torch.device,
    tick: Tick,
    steps: int,
) -> JudgeNetwork:
    """Train a judge on pictures (memory-mapped ones too); `labels` or None."""
    deterministic()
    seed_torch(SEED, "judge", 0)
    _, height, width, channels = pixels.shape
    network = JudgeNetwork(channels, height, width, classes).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    with one_thread():
        for step, chosen in enumerate(_batches(len(pixels), steps)):
            given = None if labels is None else torch.from_numpy(labels[chosen]).to(device)
            loss = network.loss(to_tensor(pixels[chosen]).to(device), given)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
            tick(step + 1, steps)
    return network.eval()


def look(network: Judge, pixels: Pixels, tick: Tick) -> Judged:
    """Judge pictures, in forward passes of one fixed size."""
    device, rows = network.scale.device, network.rows
    features = np.empty((len(pixels), network.width), np.float32)
    probabilities = np.empty((len(pixels), network.classes), np.float32)
    with torch.inference_mode():
        for first in range(0, len(pixels), rows):
            some = pixels[first : first + rows]
            padded = np.concatenate([some, np.repeat(some[-1:], rows - len(some), axis=0)])
            found = network.features(to_tensor(padded).to(device))[: len(some)]
            features[first : first + rows] = (found / network.scale).cpu().numpy()
            if network.classes:
                chances = torch.softmax(network.judge(found), dim=1)
                probabilities[first : first + rows] = chances.cpu().numpy()
            tick(min(first + rows, len(pixels)), len(pixels))
    return Judged(features, probabilities)


def set_scale(network: Judge, pixels: Pixels) -> None:
    """Scale a judge's features so that their mean variance over these pictures is 1."""
    features = look(network, pixels, lambda done, total: None).features
    scale = math.sqrt(float(features.astype(np.float64).var(axis=0).mean()))
    network.scale.fill_(scale or 1.0)


def explained_variance(network: JudgeNetwork, pixels: Pixels, tick: Tick) -> float:
    """The share of the variance of pixels that a judge without classes restores."""
    error, spread = 0.0, float(to_tensor(pixels).var(dim=0, correction=0).mean())
    with torch.inference_mode():
        for first in range(0, len(pixels), ROWS):
            some = to_tensor(pixels[first : first + ROWS]).to(network.scale.device)
            error += float(network.loss(some, None)) * len(some)
            tick(min(first + ROWS, len(pixels)), len(pixels))
    return 1 - error / len(pixels) / spread if spread else 0.0


def to_tensor(pixels: Pixels) -> Tensor:
    """Pictures as float32 (B, C, H, W) in [-1, 1]."""
    moved = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    return torch.from_numpy(moved).div_(127.5).sub_(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: sums over several depend on how many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def save(network: JudgeNetwork, path: Path, *, height: int, width: int) -> None:
    """Write a judge's weights and its form; equal judges give equal bytes."""
    about = {"form": [network.channels, height, width, network.classes]}
    write_tensors(path, network.state_dict(), about=about)


def _layer(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _decoder(flat: int, widths: list[int], sizes: list[tuple[int, int]]) -> nn.Sequential:
    """From features to pictures: upsampled from each size to the next larger one."""
    layers: list[nn.Module] = [nn.Linear(FEATURES, flat), nn.Unflatten(1, (widths[0], *sizes[0]))]
    for (before, after), size in zip(pairwise(widths[:-1]), sizes[1:-1], strict=True):
        layers += [nn.Upsample(size), _layer(before, after, 1)]
    # the last doubling moves channels to pixels, which is cheap
    layers += [nn.Conv2d(widths[-2], 4 * widths[-1], 3, 1, 1), nn.PixelShuffle(2), nn.Tanh()]
    return nn.Sequential(*layers)


def _batches(count: int, steps: int) -> Iterator[npt.NDArray[np.int64]]:
    """The items of each step: epochs in orders that depend on the epoch alone."""
    order, epoch = np.empty(0, np.int64), 0
    for _ in range(steps):
        while len(order) < BATCH:
            random = np.random.Generator(np.random.Philox(key=[SEED, epoch]))
            order, epoch = np.append(order, random.permutation(count)), epoch + 1
        yield np.sort(order[:BATCH])  # in the file's order, which is faster to read
        order = order[BATCH:]

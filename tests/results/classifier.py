"""An independent judge of digits: a small CNN trained on MNIST's training part.

It shares no code with the families. Its accuracy on the 10,000 test digits is reported with every
figure derived from it.
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def read_idx(path: Path) -> np.ndarray:
    """An IDX file (LeCun's format) of unsigned bytes as an array."""
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def as_input(images: np.ndarray) -> Tensor:
    """uint8 (N, 28, 28) -> float32 (N, 1, 28, 28) in [-1, 1]."""
    return torch.from_numpy(images.copy()).float().div(127.5).sub(1).unsqueeze(1)


def new_network() -> nn.Sequential:
    """Two convolutions and two linear layers; the penultimate one has 64 features."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, padding=2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 5, stride=2, padding=2),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train_judge(mnist: Path, *, seed: int = 0, epochs: int = 3) -> tuple[nn.Sequential, float]:
    """Train on the 60,000; return the network and its accuracy on the 10,000."""
    torch.manual_seed(seed)
    x = as_input(read_idx(mnist / "train-images-idx3-ubyte.gz"))
    y = torch.from_numpy(read_idx(mnist / "train-labels-idx1-ubyte.gz").astype(np.int64))
    network = new_network()
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        loss = functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    test = judge(network, read_idx(mnist / "t10k-images-idx3-ubyte.gz"))
    labels = read_idx(mnist / "t10k-labels-idx1-ubyte.gz")
    return network, float((test.argmax(1).numpy() == labels).mean())


@torch.inference_mode()
def judge(network: nn.Module, images: np.ndarray) -> Tensor:
    """Class probabilities, float32 (N, 10), of uint8 (N, 28, 28) images."""
    parts = [network(as_input(images[i : i + 1000])) for i in range(0, len(images), 1000)]
    return torch.cat(parts).softmax(1)

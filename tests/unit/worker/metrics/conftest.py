"""Items that the tests of metrics share."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest


def gaussian(seed: int, count: int = 300, width: int = 16) -> npt.NDArray[np.float64]:
    """Correlated features with unequal scales."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width, width)) / np.sqrt(width)
    return random.standard_normal((count, width)) @ mixing + 0.1 * seed


def read_idx(path: Path, offset: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)


@pytest.fixture
def real() -> npt.NDArray[np.float64]:
    return gaussian(1)


@pytest.fixture
def made() -> npt.NDArray[np.float64]:
    return gaussian(2)


@pytest.fixture(scope="session")
def digits(shared_data: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The 10,000 test pictures of MNIST (N, 28, 28), shuffled, and their labels."""
    folder = shared_data / "mnist"
    pictures = read_idx(folder / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))  # its halves are by other writers
    return pictures[order], labels[order]

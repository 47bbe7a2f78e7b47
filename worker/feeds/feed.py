"""The interface of every feed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.conversations import Conversation
from worker.data.dataset import Shape

Arrays = tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None]  # data, labels


class Feed(ABC):
    """Batches of one dataset for one network."""

    shape: Shape
    train_count: int  # training items per epoch
    examples: Sequence[Conversation] = ()  # prompts to preview, for a network that has none

    @abstractmethod
    def train(self, step: int) -> Arrays:
        """The training batch of a step: a pure function of (dataset, seed, step)."""

    @abstractmethod
    def validation(self) -> Iterator[Arrays]:
        """The whole validation split, once, in order; the same batches each time."""

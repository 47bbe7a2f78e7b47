"""The contract between the engine and a family's torch code.

The engine owns the loop, the budget, the device, checkpoints, validation and previews, and never
asks which family it runs. A network owns its weights, losses and sampling, and knows no queue,
database or store. Its randomness is an argument: a `Draw` made from a seed and indices.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from db.errors import Refused
from worker.conversations import Conversation
from worker.data.dataset import LocalDataset, Shape
from worker.feeds.feed import Feed
from worker.networks.inspection import Inspection
from worker.networks.params import SamplingParams, TrainingParams
from worker.networks.version_folder import WEIGHTS

Output = npt.NDArray[Any] | str  # uint8 (H, W, C) image, float32 (T,) sound, or text
Key = tuple[int, int]  # of a sample's random numbers: its job's seed and its index
Losses = dict[str, Tensor]  # name -> scalar; detached


class Draw:
    """Random numbers for samples: a pure function of (seed, sample index, stream, position).

    Counter-based: Philox4x64 keyed by (seed, index) (Salmon et al. 2011, "Parallel random numbers:
    as easy as 1, 2, 3"), with the stream in the counter's top word. So a sample's numbers do not
    depend on its batch, its worker or the order of the work.
    """

    def __init__(self, keys: Sequence[Key], device: torch.device | str = "cpu") -> None:
        self.keys = tuple(keys)
        self.device = torch.device(device)

    def normal(self, *shape: int, stream: int = 0) -> Tensor:
        """Standard normal numbers, float32 (B, *shape), B the number of samples."""
        numbers = np.empty((len(self.keys), prod(shape)))
        for row, generator in zip(numbers, self._generators(stream), strict=True):
            generator.standard_normal(out=row)
        return self._tensor(numbers.astype(np.float32), shape)

    def uniform(self, *shape: int, stream: int = 0) -> Tensor:
        """Uniform numbers in [0, 1), float32 (B, *shape)."""
        # 24 bits, so that rounding to float32 can never reach 1
        numbers = self._integers(2**24, prod(shape), stream) / 2**24
        return self._tensor(numbers.astype(np.float32), shape)

    def integers(self, high: int, *shape: int, stream: int = 0) -> Tensor:
        """Whole numbers in [0, high), int64 (B, *shape)."""
        return self._tensor(self._integers(high, prod(shape), stream), shape)

    def _integers(self, high: int, count: int, stream: int) -> npt.NDArray[np.int64]:
        numbers = np.empty((len(self.keys), count), np.int64)
        for row, generator in zip(numbers, self._generators(stream), strict=True):
            row[:] = generator.integers(0, high, size=count)
        return numbers

    def _generators(self, stream: int) -> Iterator[np.random.Generator]:
        """A generator for each row: one object, set to the row's key at the start of the stream."""
        bits, generator, key = _generator.bits, _generator.numbers, [0, 0]
        start: Any = {
            "bit_generator": "Philox",
            "state": {"counter": (0, 0, 0, stream), "key": key},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # nothing is left in it
            "has_uint32": 0,
            "uinteger": 0,
        }
        for key[:] in self.keys:
            bits.state = start
            yield generator

    def _tensor(self, numbers: npt.NDArray[Any], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(numbers.reshape(len(numbers), *shape)).to(self.device)


class _Generator(threading.local):
    """A thread's generator: a new one for each sample would ask the kernel for entropy."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.numbers = np.random.Generator(self.bits)


_generator = _Generator()


@dataclass(frozen=True)
class Batch:
    """One training or validation batch, on the network's device.

    `data`: images float32 (B, C, H, W) in [-1, 1]; text int64 (B, T + 1) tokens; sound int64
    (B, 2 + R + T), a time, a length and R + T codes, R the receptive field. `labels`: int64 (B,) or
    None; captions' tokens (B, T) in families of captions.
    """

    data: Tensor
    labels: Tensor | None
    draw: Draw  # one row, keyed by the job's seed and this batch's place: `draw.normal(B, n)[0]`


@dataclass(frozen=True)
class SourceImage:
    """An image that a sample is made from, and the index of its label in the network's shape."""

    pixels: npt.NDArray[np.uint8]  # (H, W, C)
    label: int | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One sample to make. Rows of several jobs may share a forward pass and be equal in content."""

    index: int
    label: int | None = None
    prompt: str | Conversation | None = None
    sources: tuple[SourceImage, ...] = ()  # those of `SamplingParams.source_indices`
    seed: int = 0
    watermark_key: bytes | None = field(default=None, repr=False)  # of a text's watermark, if any

    @property
    def key(self) -> Key:
        """The key of the row's random numbers."""
        return self.seed, self.index

    @property
    def text(self) -> str:
        """The prompt, "" if there is none. Raises `Refused` for a conversation."""
        if isinstance(self.prompt, Conversation):
            raise Refused("this model takes no conversations", remedy="give prompts of plain text")
        return self.prompt or ""


Draws = Callable[[Sequence[Row]], Draw]  # the random numbers of given rows
Finished = tuple[Row, Output]


@dataclass
class Clock:
    """How far a training run has come, for schedules of learning rates and loss weights."""

    step: int = 0  # steps done
    progress: float = 0.0  # 0 to 1 of the budget, in steps or in seconds
    rate: float = 1.0  # factor of every learning rate, lower in fine-tuning and after a roll-back


class Network(nn.Module, ABC):
    """One kind of model. `state_dict()` holds all weights of a version, EMA copies included.

    Initial weights and dropout may draw from torch's own generator, which the loop seeds by
    (seed, step).
    """

    keeps_best: ClassVar[bool] = True  # the version is the weights with the lowest `loss`
    rolls_back: ClassVar[bool] = False  # to the last good weights, if `judge` finds fault
    validation_batches: ClassVar[int] = 0  # at most, of the validation split; 0: all
    weights_file: ClassVar[str] = WEIGHTS  # of a version
    memory_remedy: ClassVar[str] = "take a larger machine"  # where the weights do not fit
    # on a CPU, several streams of one thread each are faster than one stream of several threads
    parallel_streams: ClassVar[bool] = False
    rows_at_once: int = 0  # rows of a training step in one forward; 0: all
    stages: Sequence[float] = (0.0,)  # progress at which each kind of training step begins
    # prompts to preview, one for each row of the contact sheet
    examples: Sequence[str] | Sequence[Conversation] = ()

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__()
        self.params = params
        self.shape = shape

    @classmethod
    @abstractmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Turn a dataset into batches.

        Files that belong to the weights, such as a tokenizer, are read from the folder `files` if
        they are there (fine-tuning); otherwise they are computed and written there.
        """

    def open(self, folder: Path, device: torch.device) -> bool:
        """Prepare for the weights of a version's folder; return whether it has any to load.

        Reads what decides the network's form besides its parameters: in most families, nothing.
        The network will be on `device`.
        """
        return True

    def bytes_to_load(self, folder: Path, device: torch.device) -> int:
        """Bytes on `device` that loading a version will take; here the size of its weights."""
        path = folder / self.weights_file
        return path.stat().st_size if path.exists() else 0

    def save_files(self, folder: Path) -> None:
        """Write what a version keeps besides its weights and the files of `feed`; often nothing."""

    def describe(self, record: dict[str, Any]) -> dict[str, Any]:
        """The content of `config.json`: `record`, or another library's with `record` inside."""
        return record

    def shared_bytes(self) -> Mapping[str, int]:
        """Bytes of memory shared with other networks of this process, by name."""
        return {}

    def load_files(self, folder: Path) -> None:
        """Read the files of `feed` that sampling needs; often none."""

    @property
    def tokenize(self) -> Callable[[str], Sequence[int]] | None:
        """The tokens of a text, without special ones; None of networks that make no texts."""
        return None

    def inspect(self) -> Inspection:
        """Try a loaded version that is being imported; `BadInput` where it is not usable.

        Here nothing: the weights fit the network that the parameters declare.
        """
        return Inspection()

    def begin_finetuning(self) -> None:
        """Freeze layers or add adapters.

        Called after the parent's weights are loaded and before `optimizers`.
        """

    def end_training(self) -> None:
        """Make the weights final: merge adapters, drop what only training needs."""

    def judge(self, losses: Mapping[str, float]) -> str | None:
        """What a validation's mean losses show to be wrong with the run; None if nothing.

        If the family `rolls_back`, the engine then returns to the weights of the last validation
        without fault and halves the learning rate.
        """
        return None

    def roll_back(self) -> None:
        """Prepare to continue from the last good weights, which are already in place."""

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Fresh optimisers by name; the loop saves and restores their states."""

    @abstractmethod
    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update: forward, backward, step, EMA. Returns scalars to log."""

    @abstractmethod
    def validate(self, batch: Batch) -> Losses:
        """Mean losses over a batch of held-out data; versions are compared by `loss`.

        Where rows hold different numbers of items, `count` is how many the means are over.
        """

    @abstractmethod
    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """The rows' samples, in order, from one forward of exactly `len(rows)` rows.

        `stream` always passes `sampling.micro_batch` rows (it pads), so that a sample's bytes do
        not depend on how many were asked for. `draw.keys` are the rows' keys.
        """

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        """Yield the samples that each step has finished, in any order, often none.

        Here a step is a micro-batch. A family whose samples end at different times may put the
        next row in a finished one's place; a row is taken from `rows` when its work begins.
        """
        while some := list(islice(rows, sampling.micro_batch)):
            padded = [*some, *[some[-1]] * (sampling.micro_batch - len(some))]
            outputs = self.sample(padded, draw(padded), sampling)
            yield list(zip(some, outputs, strict=False))


class StreamingNetwork(Network):
    """A network whose samples end at different times; a family provides `stream`."""

    @abstractmethod
    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        """See `Network.stream`."""

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """The samples of `stream`, in the rows' order."""
        keys = dict(zip(rows, draw.keys, strict=True))

        def draws(some: Sequence[Row]) -> Draw:
            return Draw([keys[row] for row in some], draw.device)

        steps = self.stream(iter(keys), draws, sampling)
        outputs = {row: output for step in steps for row, output in step}
        return [outputs[row] for row in rows]

"""Samples that are made to be measured: in memory, by the engine, and not stored.

Sample i is asked for what held-out item i is: its label or its caption, where the model takes any.
So samples have the held-out data's shares of classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from db.errors import Refused
from worker.data.dataset import LocalDataset
from worker.engine import memory
from worker.engine.generate import Generation, generate
from worker.evaluation.judge import Labels
from worker.evaluation.request import Request
from worker.evaluation.stages import Stage
from worker.networks.network import Output
from worker.specs import Prompt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Asked:
    """What the samples are asked for: numbers of the network's labels, or prompts."""

    labels: Sequence[int] = ()
    prompts: tuple[Prompt, ...] = ()


def make(request: Request, asked: Asked, stage: Stage) -> list[Output]:
    """Make the protocol's samples, in order."""
    protocol = request.protocol
    generation = Generation(
        request.network,
        request.sampling,
        seed=protocol.seed,
        start=0,
        stop=protocol.count,
        prompts=asked.prompts,
        precision=protocol.precision,
        labels=asked.labels,
    )
    return [sample.output for sample in generate(generation, stage)]


def counts(numbers: Sequence[int]) -> Array:
    """Whole numbers as an array of a fixed type."""
    return np.array(numbers, np.int64)


def asked_labels(names: Sequence[str], known: Sequence[str], labels: Labels) -> list[int]:
    """The network's numbers of held-out items' labels: `names` are the data's, `known` its own."""
    if strange := sorted(set(names) - set(known)):
        raise Refused(
            f"the dataset has labels {strange[:10]} that the model does not know",
            remedy=f"known: {', '.join(known)}",
        )
    places = np.array([known.index(name) for name in names])
    return [int(place) for place in places[labels]]


def captions_of(dataset: LocalDataset, numbers: Sequence[int]) -> tuple[Prompt, ...]:
    """The captions of items, or their labels' names where there are none."""
    found = dict.fromkeys(numbers, "")
    captioned = False
    for number, caption in enumerate(dataset.captions()):
        captioned = True
        if number in found:
            found[number] = caption
    if not captioned:
        names, labels = dataset.manifest["shape"]["labels"], dataset.array("labels")
        found = {number: names[labels[number]] for number in numbers}
    return tuple(Prompt(prompt=found[number]) for number in numbers)


def require_memory(request: Request, item_bytes: int) -> None:
    """Raise as `memory.require` where the made and the real items would not fit into memory."""
    needed = 4 * request.protocol.count * item_bytes
    memory.require(
        needed,
        torch.device("cpu"),
        what=f"measuring {request.protocol.count:,} items of {item_bytes:,} bytes",
        remedy="use a lower --count",
    )

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import Cancelled, NonFinite
from tests.families.kit import Recorder
from worker.data.feed import Feed, LocalDataset, Shape
from worker.engine.generate import Generation, generate
from worker.families import SamplingParams, TrainingParams
from worker.families.network import Batch, Draw, Losses, Network, Output, Row
from worker.specs import Prompt


class Counting(Network):
    """Makes sound whose one number is the sample's noise; short of memory beyond `most` rows."""

    def __init__(self, *, labels: tuple[str, ...] = (), most: int = 99) -> None:
        super().__init__(TrainingParams(), Shape("audio", labels=labels))
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.most = most
        self.sizes: list[int] = []

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        raise AssertionError("nothing here trains")

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {}

    def train_step(self, *_: object) -> Losses:
        return {}

    def validate(self, batch: Batch) -> Losses:
        return {}

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        self.sizes.append(len(rows))
        if len(rows) > self.most:
            raise torch.OutOfMemoryError
        return [row.numpy() for row in self.scale * draw.normal(1)]


def asked(network: Network, stop: int, start: int = 0, **given: object) -> Generation:
    sampling = SamplingParams(micro_batch=8)
    return Generation(network, sampling, 3, start, stop, **given)  # type: ignore[arg-type]


def numbers(generation: Generation, monitor: Recorder | None = None) -> list[float]:
    return [float(s.output[0]) for s in generate(generation, monitor or Recorder())]  # type: ignore[arg-type]


def test_every_forward_has_the_same_number_of_rows() -> None:
    network = Counting()
    assert len(numbers(asked(network, 19))) == 19
    assert network.sizes == [8, 8, 8]


def test_labels_are_taken_in_turn_by_index() -> None:
    network = Counting(labels=("a", "b", "c"))
    samples = list(generate(asked(network, 9, 4), Recorder()))
    assert [(s.index, s.label) for s in samples] == [
        (4, "b"),
        (5, "c"),
        (6, "a"),
        (7, "b"),
        (8, "c"),
    ]


def test_label_that_is_asked_for_is_every_sample_s() -> None:
    network = Counting(labels=("a", "b", "c"))
    assert {s.label for s in generate(asked(network, 9, label=2), Recorder())} == {"c"}


def test_prompts_are_taken_in_turn_with_their_ids() -> None:
    prompts = (Prompt(prompt="one", custom_id="x"), Prompt(prompt="two"))
    samples = list(generate(asked(Counting(), 4, 1, prompts=prompts), Recorder()))
    assert [(s.prompt, s.custom_id) for s in samples] == [
        ("two", None), ("one", "x"), ("two", None),
    ]  # fmt: skip


def test_progress_is_told_after_each_micro_batch() -> None:
    monitor = Recorder()
    numbers(asked(Counting(), 30, 10), monitor)
    assert [(done, total, unit) for done, total, unit, _ in monitor.told] == [
        (8, 20, "sample"), (16, 20, "sample"), (20, 20, "sample"),
    ]  # fmt: skip


def test_short_memory_halves_the_micro_batch_and_keeps_the_noise() -> None:
    short, monitor = Counting(most=3), Recorder()
    generation = asked(short, 11)
    assert numbers(generation, monitor) == numbers(asked(Counting(), 11))
    assert short.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    assert monitor.logs == [
        "warning: out of memory: going on with micro-batches of 4",
        "warning: out of memory: going on with micro-batches of 2",
    ]
    assert {s.micro_batch for s in generate(generation, Recorder())} == {2}


def test_memory_too_short_for_one_row_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        numbers(asked(Counting(most=0), 1))


def test_numbers_that_are_not_finite_are_never_a_sample() -> None:
    network = Counting()
    with torch.no_grad():
        network.scale.fill_(np.inf)
    with pytest.raises(NonFinite, match="sample 5"):
        numbers(asked(network, 9, 5))


def test_order_to_stop_goes_through() -> None:
    class Stopping(Recorder):
        def progress(self, *_: object, **__: object) -> None:
            raise Cancelled

    network = Counting()
    with pytest.raises(Cancelled):
        numbers(asked(network, 100), Stopping())
    assert network.sizes == [8]

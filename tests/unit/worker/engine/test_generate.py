from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import Cancelled, NonFinite
from tests.families.kit import Recorder, image_dataset
from worker.data.dataset import LocalDataset, Shape
from worker.engine.generate import Generation, generate
from worker.engine.sampler import Sampler
from worker.feeds.feed import Feed
from worker.feeds.source_images import SourceImages
from worker.networks.network import Batch, Draw, Draws, Finished, Losses, Network, Output, Row
from worker.networks.params import SamplingParams, TrainingParams
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


class Trickling(Counting):
    """Finishes one row a step, the last that began first; short of memory at a fifth step."""

    steps = 0

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        while under_way := list(islice(rows, sampling.micro_batch)):
            for row in reversed(under_way):
                self.steps += 1
                if self.steps == 5 and sampling.micro_batch > self.most:
                    raise torch.OutOfMemoryError
                yield []
                yield [(row, draw([row]).normal(1)[0].numpy())]


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


class Pairs(SamplingParams):
    """Two samples in a row belong together, and each is made from both images of its pair."""

    @property
    def samples_per_label(self) -> int:
        return 2

    def source_indices(self, index: int) -> tuple[int, ...]:
        return (index // 2 * 2, index // 2 * 2 + 1)


def test_samples_that_belong_together_take_one_label() -> None:
    network = Counting(labels=("a", "b", "c"))
    generation = Generation(network, Pairs(micro_batch=4), 3, 0, 8)
    assert [s.label for s in generate(generation, Recorder())] == list("aabbccaa")


def test_given_images_come_with_their_own_classes(tmp_path: Path) -> None:
    network = Counting(labels=("disc", "bar"))
    images = SourceImages(image_dataset(tmp_path / "d"), network.shape.labels)
    one = asked(network, 4, sources=images)
    assert [row.label for row in map(one.row, range(4))] == [1, 0, 1, 0]
    assert (one.row(34).sources[0].pixels == one.row(2).sources[0].pixels).all(), "32 were held out"
    labelled = asked(network, 4, sources=images, label=1)
    assert {labelled.row(index).label for index in range(4)} == {1}


def test_sample_between_images_of_two_classes_has_none(tmp_path: Path) -> None:
    network = Counting(labels=("bar", "disc"))
    images = SourceImages(image_dataset(tmp_path / "d"), network.shape.labels)
    row = Generation(network, Pairs(micro_batch=4), 3, 0, 8, sources=images).row(3)
    assert row.label is None
    assert [image.label for image in row.sources] == [0, 1]


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
        "warning: out of memory: continuing with micro-batches of 4",
        "warning: out of memory: continuing with micro-batches of 2",
    ]
    assert {s.micro_batch for s in generate(generation, Recorder())} == {2}


def test_page_is_made_of_fewer_rows_at_once_where_memory_is_short() -> None:
    short, rows = Counting(most=3), [Row(index, seed=3) for index in range(8)]
    sampling = SamplingParams(micro_batch=8)
    pages = [Sampler(network, sampling).make(rows) for network in (short, Counting())]
    assert pages[0] == pages[1]
    assert short.sizes == [8, 4, 2, 2, 2, 2]


def test_memory_too_short_for_one_row_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        numbers(asked(Counting(most=0), 1))
    with pytest.raises(torch.OutOfMemoryError):
        Sampler(Counting(most=0), SamplingParams(micro_batch=8)).make([Row(0)])


def test_sampling_takes_the_kernels_that_training_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    numbers(asked(Counting(), 1))
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.allow_tf32


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


def test_samples_come_in_order_however_they_are_made() -> None:
    generation = asked(Trickling(), 19)
    assert [sample.index for sample in generate(generation, Recorder())] == [*range(19)]
    assert numbers(generation) == numbers(asked(Counting(), 19))


def test_short_memory_in_the_middle_repeats_only_what_is_under_way() -> None:
    network = Trickling(most=4)
    samples = list(generate(asked(network, 11), Recorder()))
    assert [s.index for s in samples] == [*range(11)]
    assert [s.micro_batch for s in samples] == [4, 4, 4, 4, 8, 8, 8, 8, 4, 4, 4]
    assert network.steps == 12  # one in vain
    assert [float(s.output[0]) for s in samples] == numbers(asked(Counting(), 11))  # type: ignore[arg-type]


def test_order_to_stop_is_met_while_nothing_is_finished(monkeypatch) -> None:
    monkeypatch.setattr("worker.engine.tasks.REPORT_EVERY_S", 0)

    class Stopping(Recorder):
        def progress(self, done: float, *_: object, **__: object) -> None:
            self.told.append((done, 0, "", None))
            if len(self.told) == 3:
                raise Cancelled

    network, monitor = Trickling(), Stopping()
    with pytest.raises(Cancelled):
        numbers(asked(network, 100), monitor)
    assert [done for done, *_ in monitor.told] == [0, 1, 1]


def test_no_context_of_the_network_s_stays_on_while_a_sample_is_used() -> None:
    for _ in generate(asked(Counting(), 9, precision="bf16"), Recorder()):
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")

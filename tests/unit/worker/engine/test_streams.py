"""Streams that run at once: no sample depends on its stream, and each uses one thread."""

import threading
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

import pytest
import torch

from db.errors import NonFinite
from tests.unit.worker.engine.test_generate import Counting, asked, numbers
from worker.engine import threads
from worker.networks.network import Draws, Finished, Row
from worker.networks.params import SamplingParams


class Parallel(Counting):
    """Two streams of it meet at their first step; sample `bad` is not finite."""

    read_ahead = 2

    def __init__(self, *, bad: int = -1) -> None:
        super().__init__()
        self.bad = bad
        self.threads: list[int] = []
        self.meeting = threading.Barrier(2, timeout=60)

    def has_parallel_streams(self) -> bool:
        return True

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        self.threads.append(torch.get_num_threads())
        self.meeting.wait()
        for made in super().stream(rows, draw, sampling):
            for row, output in made:
                if row.index == self.bad:
                    output.fill(float("nan"))  # type: ignore[union-attr]
            yield made


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_most", 2)


def test_streams_run_at_once_with_a_thread_each_and_make_the_same_samples() -> None:
    network, before = Parallel(), torch.get_num_threads()
    made = numbers(asked(network, 45))
    assert torch.get_num_threads() == before
    assert made == numbers(asked(Counting(), 45))
    assert network.threads == [1, 1]
    assert set(network.sizes) == {8}


def test_a_job_of_one_micro_batch_has_one_stream() -> None:
    network = Parallel()
    network.meeting = threading.Barrier(1)
    assert numbers(asked(network, 8)) == numbers(asked(Counting(), 8))
    assert len(network.threads) == 1


class Slots(Counting):
    """Takes rows by the batch into slots; some end as they begin, the others one a step."""

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        batches = (batch for batch in iter(lambda: list(islice(rows, sampling.micro_batch)), []))
        taken, slots = chain.from_iterable(batches), deque[Row]()
        while True:
            done = []
            while len(slots) < sampling.micro_batch and (row := next(taken, None)):
                (slots if row.index % 3 else done).append(row)
            done += [slots.popleft()] if slots else []
            if not done:
                return
            yield [(row, draw([row]).normal(1)[0].numpy()) for row in done]


def test_a_lone_stream_takes_rows_as_it_likes() -> None:
    assert numbers(asked(Slots(), 30)) == numbers(asked(Counting(), 30))


def test_an_error_of_a_stream_ends_all() -> None:
    with pytest.raises(NonFinite):
        numbers(asked(Parallel(bad=13), 45))

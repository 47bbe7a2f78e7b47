"""Several tasks in the same forward passes: samples as if alone, and each task's errors its own."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from db.errors import Cancelled, Draining, NonFinite, Panic, Refused
from tests.families.kit import Recorder
from tests.panics import PanicException
from tests.unit.worker.engine.test_generate import Counting, Trickling
from worker.engine.generate import Generation, Sample, Task, generate, generate_together
from worker.networks.network import Draws, Finished, Network, Row
from worker.networks.params import SamplingParams
from worker.specs import Prompt


def task(network: Network, seed: int, start: int, stop: int, **given: Any) -> Task:
    monitor = given.pop("monitor", None) or Recorder()
    sampling = SamplingParams(micro_batch=8)
    return Task(Generation(network, sampling, seed, start, stop, **given), monitor)


def gathered(tasks: Sequence[Task]) -> tuple[dict[Task, list[Sample]], dict[Task, Exception]]:
    made: dict[Task, list[Sample]] = {each: [] for each in tasks}
    failed = {}
    for step in generate_together(tasks):
        for each, result in step:
            if isinstance(result, Exception):
                failed[each] = result
            else:
                made[each] += result
    return made, failed


def alone(each: Task) -> list[tuple[int, float]]:
    return [(s.index, float(s.output[0])) for s in generate(each.generation, Recorder())]  # type: ignore[arg-type]


def numbers(samples: Sequence[Sample]) -> list[tuple[int, float]]:
    return [(sample.index, float(sample.output[0])) for sample in samples]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Counting, Trickling])
def test_samples_are_those_that_each_task_makes_alone(kind: type[Counting]) -> None:
    network = kind()
    tasks = [task(network, 1, 0, 3), task(network, 2, 0, 11), task(network, 1, 1, 5)]
    made, failed = gathered(tasks)
    assert not failed
    for each in tasks:
        assert numbers(made[each]) == alone(each)


def test_tasks_fill_each_other_s_micro_batches_and_end_one_by_one() -> None:
    network = Counting()
    tasks = [task(network, seed, 0, 5) for seed in range(5)]
    ended = [
        [each.generation.seed for each, made in step if made[-1].index == 4]  # type: ignore[index]
        for step in generate_together(tasks)
    ]
    assert network.sizes == [8, 8, 8, 8]
    assert ended == [[0], [1, 2], [3], [4]]


def test_tasks_join_those_that_run_as_soon_as_there_is_room() -> None:
    network = Trickling()
    first, second, third = (task(network, seed, 0, 5) for seed in (1, 2, 3))
    coming, asked = [[second], [third], []], []

    def more() -> list[Task]:
        asked.append(network.steps)
        return coming.pop(0)

    made: dict[Task, list[Sample]] = {first: [], second: [], third: []}
    for step in generate_together([first], more):
        for each, samples in step:
            made[each] += samples  # type: ignore[operator]
    assert asked == [0, 8, 8], "whenever the network takes rows and none is left"
    for each, samples in made.items():
        assert numbers(samples) == alone(each)


def test_tasks_that_join_end_alone_as_others_do() -> None:
    network = Choosy()
    good = task(network, 1, 0, 3)
    bad = task(network, 2, 0, 9, prompts=(Prompt(prompt="too long"),))
    coming = [[bad], []]
    steps = [*generate_together([good], lambda: coming.pop(0))]
    [error] = [made for step in steps for each, made in step if each is bad]
    assert isinstance(error, Refused)
    assert [numbers(made) for step in steps for each, made in step if each is good] == [alone(good)]  # type: ignore[arg-type]


def test_each_task_has_its_own_labels_prompts_and_progress() -> None:
    network = Counting(labels=("a", "b"))
    prompts = (Prompt(prompt="one", custom_id="x"),)
    tasks = [task(network, 1, 0, 3, label=1), task(network, 2, 0, 2, prompts=prompts)]
    made, _ = gathered(tasks)
    assert [(s.label, s.prompt, s.custom_id) for s in made[tasks[0]]] == [("b", None, None)] * 3
    assert [(s.label, s.prompt, s.custom_id) for s in made[tasks[1]]] == [
        ("a", "one", "x"), ("b", "one", "x"),
    ]  # fmt: skip
    told = [[(done, total) for done, total, *_ in each.monitor.told] for each in tasks]  # type: ignore[attr-defined]
    assert told == [[(3, 3)], [(2, 2)]]


class Choosy(Counting):
    """Refuses a prompt, and makes numbers that are not finite for another."""

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        for made in super().stream(rows, draw, sampling):
            for row, output in made:
                if row.prompt == "too long":
                    raise Refused("this prompt is too long")
                if row.prompt == "panic":
                    raise PanicException("called `unwrap()` on a None")
                if row.prompt == "nan":
                    output.fill(float("nan"))  # type: ignore[union-attr]
            yield made


@pytest.mark.parametrize(("prompt", "error"), [("too long", Refused), ("nan", NonFinite)])
def test_a_task_at_fault_ends_alone(prompt: str, error: type[Exception]) -> None:
    network = Choosy()
    bad = task(network, 2, 0, 9, prompts=(Prompt(prompt="x"), Prompt(prompt=prompt)))
    good = [task(network, 1, 0, 12), task(network, 3, 0, 7)]
    made, failed = gathered([good[0], bad, good[1]])
    assert list(failed) == [bad]
    assert isinstance(failed[bad], error)
    for each in good:
        assert numbers(made[each]) == alone(each)


def test_a_panic_at_one_task_s_input_ends_it_alone_and_then_the_process() -> None:
    network = Choosy()
    bad = task(network, 2, 0, 9, prompts=(Prompt(prompt="panic"),))
    before, after = task(network, 1, 0, 12), task(network, 3, 0, 7)
    made: dict[Task, list[Any]] = {before: [], bad: [], after: []}

    def run() -> None:
        for step in generate_together([before, bad, after]):
            for each, result in step:
                made[each] += result if isinstance(result, list) else [result]

    with pytest.raises(Draining):  # which gives the others back, unharmed
        run()
    assert numbers(made[before]) == alone(before)
    [panic] = made[bad]
    assert isinstance(panic, Panic)
    assert "native code panicked (PanicException): called `unwrap()` on a None" in str(panic)
    assert not [each for each in made[after] if isinstance(each, Exception)]


class Ordered(Recorder):
    """Gives an order when the first samples are made."""

    def __init__(self, order: Exception) -> None:
        super().__init__()
        self.order = order

    def progress(self, *told: Any, **more: Any) -> None:
        raise self.order


def test_an_order_to_stop_one_task_leaves_the_others_running() -> None:
    network = Counting()
    stopped = task(network, 2, 0, 100, monitor=Ordered(Cancelled()))
    others = [task(network, 1, 0, 4), task(network, 3, 0, 4)]
    made, failed = gathered([others[0], stopped, others[1]])
    assert isinstance(failed[stopped], Cancelled)
    assert made[stopped] == []
    for each in others:
        assert numbers(made[each]) == alone(each)
    assert len(network.sizes) < 6, "its other samples are not made"


def test_rows_under_way_are_left_when_all_tasks_are_told_to_stop() -> None:
    network = Trickling()
    tasks = [task(network, seed, 0, 4, monitor=Ordered(Cancelled())) for seed in (1, 2)]
    _, failed = gathered(tasks)
    assert set(failed) == set(tasks)
    assert network.steps <= 2


def test_draining_ends_all_tasks() -> None:
    network = Counting()
    tasks = [task(network, 1, 0, 20), task(network, 2, 0, 20, monitor=Ordered(Draining()))]
    with pytest.raises(Draining):
        gathered(tasks)


def test_short_memory_halves_the_micro_batch_of_all() -> None:
    network = Counting(most=3)
    tasks = [task(network, seed, 0, 3) for seed in (1, 2)]
    made, failed = gathered(tasks)
    assert not failed
    assert network.sizes == [8, 4, 2, 2, 2]
    for each in tasks:
        assert {sample.micro_batch for sample in made[each]} == {2}
        assert len(each.monitor.logs) == 2  # type: ignore[attr-defined]
    with pytest.raises(torch.OutOfMemoryError):
        gathered([task(Counting(most=0), 1, 0, 1), task(Counting(most=0), 2, 0, 1)])

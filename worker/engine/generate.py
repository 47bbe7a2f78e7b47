"""Sampling from a network. Knows no queue and no family by name.

Sample i depends only on the weights, the settings, the seed and i: its noise is keyed by (seed, i),
and every forward pass has the same number of rows, padded if fewer are asked for.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain

import torch

from db.errors import Draining, Panic, Stopped, contained
from worker.engine.generation import Generation, Sample
from worker.engine.monitor import Monitor
from worker.engine.sampler import Sampler
from worker.engine.streams import run_streams
from worker.engine.tasks import Step, Task, Turns, Unfinished
from worker.networks.network import Finished, Row

__all__ = ["Generation", "Sample", "Task", "generate", "generate_together"]

More = Callable[[], Sequence[Task]]


def generate(generation: Generation, monitor: Monitor) -> Iterator[Sample]:
    """Yield the samples in order, reporting to `monitor` after each step of the network.

    Raises `NonFinite` if a sample is not finite, and lets the monitor's `Stopped` through.
    """
    for made in generate_together([Task(generation, monitor)]):
        for _, samples in made:
            if isinstance(samples, Exception):
                raise samples
            yield from samples


def generate_together(tasks: Sequence[Task], more: More = tuple) -> Iterator[Step]:
    """Make the samples of several tasks in the same forward passes.

    The tasks have one network, one sampling and one precision. Where there is room and no task has
    further rows, `more` is asked for tasks, until it has none. Yields, after each step of the
    network, what it finished: of each task the next samples in order, or the error that ends this
    task alone, such as a prompt that is too long or its monitor's `Stopped`. Where a step fails,
    the tasks go on one by one, to find the one at fault. Raises what ends all: `Draining`, also
    after the `Panic` of one of several tasks, and errors of the device.
    """
    yield from _isolated([Unfinished(task) for task in tasks], more)


def _isolated(group: list[Unfinished], more: More = tuple) -> Iterator[Step]:
    try:
        yield from _run(group, more)
    except (Stopped, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except BaseException as error:  # native code may panic at a task's input
        failure = contained(error)
        left = [each for each in group if not each.ended]
        if not left:
            raise
        if len(left) == 1:
            yield [(left[0].task, failure)]
            return
        yield from _one_by_one(left)


def _one_by_one(group: list[Unfinished]) -> Iterator[Step]:
    for each in group:
        for step in _isolated([each]):
            yield step
            if any(isinstance(made, Panic) for _, made in step):
                # the panic may have left locks behind, at which the others would fail as well
                raise Draining("native code panicked: this process ends")


def _run(group: list[Unfinished], more: More) -> Iterator[Step]:
    """Run until all tasks have ended; the micro-batch is halved when the device lacks memory."""
    first = group[0].task.generation
    sampler = Sampler(first.network, first.sampling, precision=first.precision)
    rows = _rows(group, more)
    taken: dict[Row, Unfinished] = {}  # by the sampler
    turns = Turns(group)
    while True:
        size = sampler.sampling.micro_batch
        waiting = _recorded(chain([*taken.items()], rows), taken)
        try:
            for made in run_streams(sampler, waiting):
                yield _advance(made, taken, turns, size)
                if _all_stopped(group, taken):
                    return
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            return
        sampler.halve_micro_batch()  # outside the handler: the exception keeps tensors alive
        message = f"out of memory: continuing with micro-batches of {size // 2}"
        for each in group:
            with suppress(Stopped):  # the next report raises it again
                each.task.monitor.log(message, level="warning")


def _advance(
    made: list[Finished], taken: dict[Row, Unfinished], turns: Turns, micro_batch: int
) -> Step:
    for row, output in made:
        taken[row].add(row, output, micro_batch)
    ready = turns.take(taken.pop(row) for row, _ in made)
    return [part for each in ready for part in each.advance()]


def _all_stopped(group: list[Unfinished], taken: Mapping[Row, Unfinished]) -> bool:
    """Whether rows are under way that no task wants any more."""
    return bool(taken) and all(each.ended for each in group)


def _rows(group: list[Unfinished], more: More) -> Iterator[tuple[Row, Unfinished]]:
    """The rows of the group's tasks, and of those that are added to it once these have none."""
    waiting = deque(group)
    while waiting:
        each = waiting.popleft()
        for row in each.rows():
            yield row, each
        if not waiting:
            waiting += (added := [Unfinished(task) for task in more()])
            group += added


def _recorded(
    rows: Iterator[tuple[Row, Unfinished]], taken: dict[Row, Unfinished]
) -> Iterator[Row]:
    for row, each in rows:
        taken[row] = each
        yield row

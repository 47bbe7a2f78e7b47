"""Tasks of generation: which of a task's samples are made, and which are yielded."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from db.errors import Draining, Stopped
from worker.engine.generation import Generation, Sample
from worker.engine.monitor import Monitor
from worker.networks.network import Output, Row


@dataclass(frozen=True, eq=False)
class Task:
    """Samples to make, beside those of other tasks, and whom to tell."""

    generation: Generation
    monitor: Monitor


REPORT_EVERY_S = 0.5  # by tasks of which the last steps have made nothing

Step = list[tuple[Task, list[Sample] | Exception]]


class Unfinished:
    """A task while it runs: which samples are made, and which are yielded."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.ended = False
        generation = task.generation
        self._next, self._stop = generation.start, generation.stop  # to yield
        self._total, self._made = generation.stop - generation.start, 0
        self._waiting: dict[int, Sample] = {}  # for a sample of a lower index
        self._began = 0.0

    def rows(self) -> Iterator[Row]:
        """The rows that are still to make, until the task ends."""
        self._began = self._began or time.monotonic()
        for index in range(self._next, self._stop):
            if self.ended:
                return
            if index not in self._waiting:
                yield self.task.generation.row(index)

    def add(self, row: Row, output: Output, micro_batch: int) -> None:
        """Take a finished sample."""
        generation, index = self.task.generation, row.index
        labels, prompts = generation.network.shape.labels, generation.prompts
        label = labels[row.label] if row.label is not None else None
        custom_id = prompts[index % len(prompts)].custom_id if prompts else None
        self._waiting[index] = Sample(index, output, label, row.prompt, custom_id, micro_batch)
        self._made += 1

    def advance(self) -> Step:
        """Report progress; then yield the next samples, or the order to stop this task."""
        elapsed_s = time.monotonic() - self._began
        eta_s = elapsed_s / self._made * (self._total - self._made) if self._made else None
        try:
            self.task.monitor.progress(self._made, self._total, "sample", eta_s=eta_s)
        except Draining:
            raise
        except Stopped as order:
            self.ended = True
            return [(self.task, order)]
        samples = []
        while sample := self._waiting.pop(self._next, None):
            samples.append(sample)
            self._next += 1
        self.ended = self._next == self._stop
        return [(self.task, samples)] if samples else []


class Turns:
    """Which tasks of a group report after a step."""

    def __init__(self, group: list[Unfinished]) -> None:
        self._group = group
        self._all_at = 0.0

    def take(self, touched: Iterable[Unfinished]) -> list[Unfinished]:
        """Those that the step made samples of, and now and then those that wait for theirs too.

        Tasks that have ended leave the group then.
        """
        chosen = dict.fromkeys(touched)
        now = time.monotonic()
        if now >= self._all_at:
            self._all_at = now + REPORT_EVERY_S
            self._group[:] = [each for each in self._group if not each.ended]
            chosen = dict.fromkeys(self._group)
        return [each for each in chosen if not each.ended]

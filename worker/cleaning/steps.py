"""A chain of steps that each see one item's content, and the report of what they did."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from worker.source_files.members import DECODE, Rejects, Unfit

Progress = Callable[[str, int], None]  # the stage, and how many items it has seen
EVERY = 100  # items between two calls of it

SIZE = "size"


@dataclass
class StepReport:
    """What a step did: its parameters, the items before and after it, rejects by reason."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seen: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    found: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data, for the manifest."""
        document = {
            "name": self.name,
            "parameters": dict(self.parameters),
            "in": self.seen,
            "out": self.seen - self.rejects.total(),
            "rejects": dict(sorted(self.rejects.items())),
        }
        return document | ({"found": dict(self.found)} if self.found else {})


class Step(ABC):
    """A check or repair of one item's content at a time."""

    name: ClassVar[str]
    parameters: Mapping[str, Any] = {}

    @abstractmethod
    def __call__(self, content: Any) -> Any:
        """The content, changed or not; `refuse` leaves the item out."""

    def found(self) -> dict[str, Any]:
        """What it noticed or changed, by kind."""
        return {}

    def refuse(self, reason: str) -> Unfit:
        """The error that leaves an item out; equal reasons are counted together."""
        return Unfit(reason, step=self.name)


class Chain:
    """Steps one after another, behind a check that no item is smaller than `min_size`."""

    def __init__(
        self, steps: Sequence[Step], *, min_size: float, unit: str, progress: Progress | None = None
    ) -> None:
        self.steps, self.unit = steps, unit
        self.progress = progress or (lambda _stage, _count: None)
        self.notes: list[StepReport] = []  # of what a source did to items before they came here
        self._min_size = min_size
        self._seen: Counter[str] = Counter()

    def __call__(self, content: Any, size: float) -> Any:
        """The content after all steps; `size` is the item's own, in the chain's unit."""
        self.check_size(size)
        for step in self.steps:
            self._seen[step.name] += 1
            content = step(content)
        return content

    def repair(self, content: Any) -> Any:
        """A part of a long text after all steps, none of which leaves it out."""
        for step in self.steps:
            self._seen[step.name] += 1
            with suppress(Unfit):
                content = step(content)
        return content

    def check_size(self, size: float) -> None:
        """Leave out an item that is too small."""
        self._seen[SIZE] += 1
        if self._seen[SIZE] % EVERY == 0:
            self.progress("read", self._seen[SIZE])
        if size < self._min_size:
            raise Unfit(f"smaller than {self._min_size:g} {self.unit}", step=SIZE)

    def reports(self, rejects: Rejects) -> list[StepReport]:
        """What became of the items, beginning with those that could not be read."""
        unread = rejects.by_step[DECODE]
        smallest = {"min": self._min_size, "unit": self.unit}
        return [
            StepReport(DECODE, {}, self._seen[SIZE] + unread.total(), unread),
            *self.notes,
            StepReport(SIZE, smallest, self._seen[SIZE], rejects.by_step[SIZE]),
            *(
                StepReport(
                    step.name,
                    step.parameters,
                    self._seen[step.name],
                    rejects.by_step[step.name],
                    step.found(),
                )
                for step in self.steps
            ),
        ]

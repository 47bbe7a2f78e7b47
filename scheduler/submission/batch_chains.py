"""The chains of a batch: a line waits for the line of the same file that its `after` names.

That line may come later, so some are checked when all have been read. Lines are known by the hashes
of their custom_ids, because a batch may have a million of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from db.chains import MAX_LENGTH
from db.errors import NotFound, Refused
from scheduler.submission.chains import Families
from scheduler.submission.requests import Columns, Preparer, Request, Unchecked, Waiting
from worker.specs import Finetune, Spec, Train


@dataclass(frozen=True)
class _Place:
    """Where a line stands in its chain."""

    length: int = 1  # lines up to it
    made: Families = field(default_factory=dict)  # whose versions it makes, or a line before it


@dataclass(frozen=True)
class _Early:
    """A line that was read before the one that it waits for, or waits for such a line."""

    number: int
    spec: Spec
    columns: Columns


class BatchChains:
    """Checks the lines that wait."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._places: dict[int, _Place] = {}  # of those lines that train or wait
        self._early: list[_Early] = []
        self._early_ids: dict[int, _Early] = {}

    def add(self, request: Request) -> None:
        """Note what a line makes that waits for none."""
        if isinstance(request.asked, Train | Finetune):
            self._note(request.columns, _Place(made={request.model: request.family}))

    def check(
        self, number: int, spec: Spec, columns: Columns, *, seen: bool
    ) -> Waiting | Unchecked:
        """Check a line that waits for another, which has been `seen` or not; else `check_early`."""
        if seen and hash(columns["after_id"]) not in self._early_ids:
            return self._check(spec, columns)
        early = _Early(number, spec, columns)
        self._early.append(early)
        if columns.get("custom_id") is not None:
            self._early_ids[hash(columns["custom_id"])] = early
        return Unchecked(spec, columns, marks=self._preparer.marks_of(spec))

    def check_early(self, seen: dict[int, int]) -> Iterator[tuple[int, Waiting | Exception]]:
        """Check the lines that could not be checked before; the result of each, by its number.

        `seen` are the lines of all custom_ids.
        """
        for early in self._early:
            try:
                for each in reversed(self._path(early, seen)[1:]):
                    self._check_other(each)
                yield early.number, self._check(early.spec, early.columns)
            except (Refused, NotFound) as error:
                yield early.number, error

    def _check_other(self, early: _Early) -> None:
        try:
            self._check(early.spec, early.columns)
        except (Refused, NotFound):
            custom_id = early.columns["custom_id"]
            raise Refused(f"after {custom_id!r}: line {early.number} is wrong") from None

    def _path(self, early: _Early, seen: dict[int, int]) -> list[_Early]:
        """A line and those before it that have no place yet, the nearest first."""
        path = [early]
        while (before := hash(path[-1].columns["after_id"])) not in self._places:
            if before not in seen:
                raise Refused(
                    f"after {path[-1].columns['after_id']!r}: no correct line has this custom_id"
                )
            if before not in self._early_ids:
                break
            path.append(self._early_ids[before])
            if path[-1] is early:
                others = ", ".join(str(each.number) for each in path[1:-1])
                way = f", by way of line {others}" if others else ""
                raise Refused(f"after {early.columns['after_id']!r}: it waits for itself{way}")
            if len(path) > MAX_LENGTH:
                raise _too_long()
        return path

    def _check(self, spec: Spec, columns: Columns) -> Waiting:
        place = self._places.get(hash(columns["after_id"]), _Place())
        if place.length >= MAX_LENGTH:
            raise _too_long()
        waiting = self._preparer.prepare_waiting(spec, place.made, **columns)
        trains = isinstance(spec, Train | Finetune)
        made = {**place.made, waiting.model: waiting.family} if trains else place.made
        self._note(columns, _Place(place.length + 1, made))
        return waiting

    def _note(self, columns: Columns, place: _Place) -> None:
        if columns.get("custom_id") is not None:
            self._places[hash(columns["custom_id"])] = place


def _too_long() -> Refused:
    return Refused(f"a chain of more than {MAX_LENGTH} jobs", remedy="make it shorter")

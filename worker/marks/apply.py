"""Applying a profile's marks to samples, and reading each back before anything is stored.

It fails closed: a sample whose marks do not read back is an error. What does not fit a sample is
counted with its reason, for the manifest.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from db.errors import MarkFailed
from worker.data.dataset import Shape
from worker.marks import find_mark
from worker.marks.base import ABSENT, NOT_APPLICABLE, PRESENT, Mark, Marking, Reading, Stage
from worker.media.samples.containers import SampleRecord

T = TypeVar("T")
MAX_REASONS = 20  # that are told apart, so that manifests stay small
OTHER = "other reasons"
_ORDER = (Stage.CONTENT, Stage.BYTES, Stage.SIGNATURE)


@dataclass
class Count:
    """What became of one mark: how many samples have it, and why others do not."""

    applied: int = 0
    not_applied: Counter[str] = field(default_factory=Counter)  # by the reason

    def add(self, applied: int, whys: Iterable[str]) -> None:
        """Count samples that have the mark, and others, of which each lacks it for a reason."""
        self.applied += applied
        for why, samples in Counter(whys).items():
            known = why in self.not_applied or len(self.not_applied) < MAX_REASONS
            self.not_applied[why if known else OTHER] += samples

    @property
    def data(self) -> dict[str, Any]:
        """As plain data, for the manifest."""
        return {"applied": self.applied, "not_applied": dict(sorted(self.not_applied.items()))}


Fitting = Mapping[str, Sequence[int]]  # the places of the samples that a mark fits, by its name


class Marker:
    """Encodes samples with the marks of a profile."""

    def __init__(self, marking: Marking) -> None:
        self._marking = marking
        self._marks = sorted(map(find_mark, marking.profile.marks), key=_in_order)
        self._misfits = {mark.name: mark.misfit_of_job(marking) for mark in self._marks}
        self.counts = {mark.name: Count() for mark in self._marks}

    @property
    def data(self) -> dict[str, Any]:
        """What each mark did so far, as plain data for the manifest."""
        return {name: count.data for name, count in sorted(self.counts.items())}

    def encode(self, samples: Sequence[SampleRecord], shape: Shape) -> list[bytes]:
        """The marked bytes of each sample, as `mark`."""
        return self.mark(samples, shape)[1]

    def mark(
        self, samples: Sequence[SampleRecord], shape: Shape
    ) -> tuple[Sequence[SampleRecord], list[bytes]]:
        """The samples with the marks of their content, and the marked bytes of each, read back.

        Raises `MarkFailed`, and as encoding does.
        """
        fitting = {mark.name: self._fitting(mark, samples) for mark in self._marks}
        made = self._with_content(samples, fitting)
        data = self._marking.medium.encode(made, shape)
        data = self._with_tags(samples, data, fitting)
        for mark, places in self._of_stage(fitting, Stage.BYTES, Stage.SIGNATURE):
            some = _chosen(samples, places)
            data = _changed(data, places, partial(mark.apply_bytes, some, marking=self._marking))
        self._read_back(samples, data, fitting)
        return made, data

    def _of_stage(self, fitting: Fitting, *stages: Stage) -> Iterator[tuple[Mark, Sequence[int]]]:
        """The marks of some stages that fit any sample, in order, and the places of those."""
        for mark in self._marks:
            if mark.stage in stages and fitting[mark.name]:
                yield mark, fitting[mark.name]

    def _fitting(self, mark: Mark, samples: Sequence[SampleRecord]) -> Sequence[int]:
        if why := self._misfits[mark.name]:
            self.counts[mark.name].add(0, [why] * len(samples))
            return ()
        whys = [mark.misfit(sample, self._marking) for sample in samples]
        if not any(whys):
            return range(len(samples))
        self.counts[mark.name].add(0, filter(None, whys))
        return [place for place, why in enumerate(whys) if not why]

    def _with_content(
        self, samples: Sequence[SampleRecord], fitting: Fitting
    ) -> Sequence[SampleRecord]:
        for mark, places in self._of_stage(fitting, Stage.CONTENT):
            samples = _changed(samples, places, partial(mark.apply_content, marking=self._marking))
        return samples

    def _with_tags(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], fitting: Fitting
    ) -> list[bytes]:
        tags: list[list[Any]] = [[] for _ in samples]
        for mark in self._marks:
            for place in fitting[mark.name]:
                tags[place] += mark.tags(samples[place], self._marking)
        medium = self._marking.medium
        return [medium.with_tags(each, tags[place]) for place, each in enumerate(data)]

    def _read_back(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], fitting: Fitting
    ) -> None:
        """Count what reads back; raise `MarkFailed` for what does not and should."""
        missed: dict[str, list[str]] = {mark.name: [] for mark in self._marks}
        marks = [mark for mark in self._marks if mark.is_written]
        readings = [self._readings(mark, samples, data, fitting[mark.name]) for mark in marks]
        # file by file: some marks read the same part of one
        for sample, *found in zip(samples, *readings, strict=True):
            if any(found):
                for mark, reading in zip(marks, found, strict=True):
                    if reading and (why := self._missing(mark, sample, reading)):
                        missed[mark.name].append(why)
        for name, whys in missed.items():
            self.counts[name].add(len(fitting[name]) - len(whys), whys)

    def _readings(
        self,
        mark: Mark,
        samples: Sequence[SampleRecord],
        data: Sequence[bytes],
        places: Sequence[int],
    ) -> Iterator[Reading | None]:
        """What `Mark.read_back` says of each sample; None, too, where the mark does not fit."""
        found = mark.read_back(_chosen(samples, places), _chosen(data, places), self._marking)
        if len(places) == len(samples):
            return found
        fitting = set(places)
        return (next(found) if place in fitting else None for place in range(len(samples)))

    def _missing(self, mark: Mark, sample: SampleRecord, reading: Reading) -> str:
        """Why a mark that may be missed does not read back; empty if it does."""
        fault = _fault(reading, mark.expected(sample, self._marking))
        if fault and not _may_miss(mark, reading):
            raise MarkFailed(
                f"the mark {mark.name} of sample {sample.index} failed: {fault}",
                remedy=f"see what docs/marks.md says of it, or leave {mark.name} out",
            )
        return fault and (reading.why or fault)


def token_key(marking: Marking | None) -> bytes | None:
    """The key by which a sampler of texts draws its tokens, if a mark has one."""
    if marking is None:
        return None
    hooks = (find_mark(name).token_hook(marking) for name in marking.profile.marks)
    return next(filter(None, hooks), None)


def _fault(reading: Reading, expected: Mapping[str, Any]) -> str:
    """What a reading of a finished file lacks; empty if nothing."""
    if reading.state != PRESENT:
        return f"it reads back as {reading.state}" + (f": {reading.why}" if reading.why else "")
    for name, value in expected.items():
        if name not in reading.says or reading.says[name] != value:
            found = repr(reading.says.get(name))[:80]
            return f"its {name} reads back as {found}, not {value!r:.80}"
    return ""


def _may_miss(mark: Mark, reading: Reading) -> bool:
    return reading.state == NOT_APPLICABLE or (mark.statistical and reading.state == ABSENT)


def _in_order(mark: Mark) -> tuple[int, int, str]:
    return _ORDER.index(mark.stage), mark.precedence, mark.name


def _chosen(items: Sequence[T], places: Sequence[int]) -> Sequence[T]:
    return items if len(places) == len(items) else [items[place] for place in places]


def _changed(
    items: Sequence[T], places: Sequence[int], change: Callable[[Sequence[T]], Sequence[T]]
) -> list[T]:
    """The items, of which those at `places` were changed."""
    made = list(items)
    for place, item in zip(places, change(_chosen(items, places)), strict=True):
        made[place] = item
    return made

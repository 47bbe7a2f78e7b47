"""Which samples and files of a download are wanted, and numbers of samples as text."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain
from typing import Self

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def parse_ranges(text: str) -> tuple[range, ...]:
    """The numbers that `17,20-30` names, last ones included. Raises `ValueError`."""
    ranges = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is no number or range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part.strip()} ends before it begins")
        ranges.append(range(first, last + 1))
    return tuple(ranges)


def show_ranges(numbers: Iterable[int]) -> str:
    """Numbers in short, as in `0-4,7`."""
    return ",".join(
        str(each.start) if len(each) == 1 else f"{each.start}-{each.stop - 1}"
        for each in merge(range(number, number + 1) for number in numbers)
    )


def merge(ranges: Iterable[range]) -> list[range]:
    """Ranges with the same numbers, in order and apart from one another."""
    merged: list[range] = []
    for each in sorted(ranges, key=lambda one: one.start):
        if merged and each.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, each.stop))
        else:
            merged.append(each)
    return merged


@dataclass(frozen=True)
class Choice:
    """Samples by their numbers, and files by patterns of their names. Without any, all of them."""

    numbers: tuple[range, ...] = ()  # in order and apart
    patterns: tuple[str, ...] = ()

    @classmethod
    def of(cls, numbers: Iterable[range] = (), patterns: Iterable[str] = ()) -> Self:
        """The choice of numbers in any order."""
        return cls(tuple(merge(numbers)), tuple(patterns))

    def __bool__(self) -> bool:
        return bool(self.numbers or self.patterns)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.numbers)

    def has(self, sample: int) -> bool:
        """Whether this sample is wanted."""
        if not self.numbers:
            return True
        at = bisect_right(self._starts, sample) - 1
        return at >= 0 and sample < self.numbers[at].stop

    def meets(self, samples: range) -> bool:
        """Whether any of these samples is wanted."""
        return not self.numbers or any(
            each.start < samples.stop and samples.start < each.stop for each in self.numbers
        )

    def takes(self, name: str) -> bool:
        """Whether a file of this name is wanted."""
        return not self.patterns or any(fnmatchcase(name, each) for each in self.patterns)

    @cached_property
    def _starts(self) -> list[int]:
        return [each.start for each in self.numbers]


ALL = Choice()

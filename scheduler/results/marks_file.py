"""`marks.json`: what the marks of the converted files in a folder are, and why some lack one.

It is about every file that is in the folder, whichever download made it. Files of one job with the
same marks are a group, so it stays small.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from scheduler.results.choice import Choice, parse_ranges, show_ranges
from worker.marks.apply import Count

NAME = "marks.json"

Marks = dict[str, dict[str, Any]]  # by mark: `applied`, and `not_applied` by the reason

_FILE = re.compile(r"(\d{9})(\.\w+)")


class Group(NamedTuple):
    """The converted files of a job that have the same marks."""

    job: str
    suffix: str
    applied: tuple[str, ...]
    not_applied: tuple[tuple[str, str], ...]  # marks, and why the files lack them


Groups = Mapping[Group, set[int]]  # the numbers of the samples


class _Listed(BaseModel, extra="forbid"):
    job: str
    suffix: str
    samples: str
    applied: list[str]
    not_applied: dict[str, str]

    @property
    def group(self) -> Group:
        return Group(
            self.job, self.suffix, tuple(self.applied), tuple(sorted(self.not_applied.items()))
        )


class _Document(BaseModel):
    groups: list[_Listed]


def total(groups: Groups) -> Marks:
    """What each mark did; of many reasons, the first ones are told apart."""
    counts = defaultdict[str, Count](Count)
    for group, samples in groups.items():
        for name in group.applied:
            counts[name].add(len(samples), ())
        for name, why in group.not_applied:
            counts[name].add(0, [why] * len(samples))
    return {name: count.data for name, count in sorted(counts.items())}


def updated(folder: Path, made: Groups) -> bytes | None:
    """The content of the folder's `marks.json` once a download has made files.

    None if no file is known that has, or lacks, any marks.
    """
    groups = defaultdict[Group, set[int]](set)
    for group, samples in made.items():
        if group.applied or group.not_applied:
            groups[group] |= samples
    fresh = {(number, group.suffix) for group, samples in made.items() for number in samples}
    for group, number in _known(folder):
        if (number, group.suffix) not in fresh:
            groups[group].add(number)
    if not groups:
        return None
    return (json.dumps(_document(groups), indent=2, ensure_ascii=False) + "\n").encode()


def _document(groups: Groups) -> dict[str, Any]:
    return {
        "files": sum(map(len, groups.values())),
        "marks": total(groups),
        "groups": [
            {
                "job": group.job,
                "suffix": group.suffix,
                "samples": show_ranges(samples),
                "applied": list(group.applied),
                "not_applied": dict(group.not_applied),
            }
            for group, samples in sorted(groups.items())
        ],
    }


def _known(folder: Path) -> Iterator[tuple[Group, int]]:
    """The files in the folder that earlier downloads have made, by their groups and numbers."""
    listed = [(each.group, Choice.of(parse_ranges(each.samples))) for each in _read(folder / NAME)]
    if not listed:
        return
    for file in folder.iterdir():
        if match := _FILE.fullmatch(file.name):
            number, suffix = int(match[1]), match[2]
            for group, samples in listed:
                if group.suffix == suffix and samples.has(number):
                    yield group, number
                    break


def _read(path: Path) -> list[_Listed]:
    """What a folder's `marks.json` lists; nothing if there is none, or none of ours."""
    if path.is_symlink() or not path.is_file():
        return []
    try:
        found = _Document.model_validate_json(path.read_bytes()).groups
        for each in found:
            parse_ranges(each.samples)
    except ValueError:
        return []
    return found

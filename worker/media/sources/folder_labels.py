"""Labels and splits from the names of folders, as in `train/cat/1.png`."""

import re
from dataclasses import dataclass
from itertools import takewhile

from db.errors import BadInput
from worker.data.dataset import TEST, VALIDATION
from worker.data.split import UNASSIGNED

MAX_LABELS = 10_000

_SPLITS = {
    "train": UNASSIGNED,
    "training": UNASSIGNED,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


@dataclass(frozen=True)
class FolderLabels:
    """What the folders around a dataset's files mean."""

    skip: int  # outer folders that all files share
    splits: bool  # whether the next folder is `train`, `test` and so on
    labels: tuple[str, ...]

    def read(self, folders: tuple[str, ...]) -> tuple[str | None, int]:
        """The label and the split code of a file in these folders."""
        rest = folders[self.skip :]
        split = _SPLITS.get(rest[0].lower(), UNASSIGNED) if self.splits and rest else UNASSIGNED
        rest = rest[1:] if self.splits else rest
        return (rest[0] if rest else None), split

    def require(self, label: str | None) -> None:
        """Refuse a file without a label if others have one."""
        if self.labels and label is None:
            raise BadInput("lies beside the folders of the labels, in none of them")


def folder_labels(folders: set[tuple[str, ...]]) -> FolderLabels:
    """Interpret `folders`: skip those that all files share; then splits, if any; then labels."""
    skip = sum(
        1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    )
    rests = {each[skip:] for each in folders}
    heads = {rest[0].lower() if rest else "" for rest in rests}
    splits = len(heads) > 1 and heads <= set(_SPLITS)
    unlabelled = FolderLabels(skip, splits, ())
    labels = {label for label, _ in map(unlabelled.read, folders) if label is not None}
    if len(labels) > MAX_LABELS:
        raise BadInput(
            f"{len(labels):,} folders, and so labels", remedy=f"use at most {MAX_LABELS:,}"
        )
    return FolderLabels(skip, splits, tuple(sorted(labels, key=natural_key)))


def natural_key(label: str) -> list[tuple[int, str]]:
    """A sort key that puts `2` before `10`, and numbers before words."""
    parts = re.split(r"([0-9]+)", label)
    return [(int(part), "") if part.isdecimal() and part else (10**9, part) for part in parts]

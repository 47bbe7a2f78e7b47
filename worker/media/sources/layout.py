"""Labels and splits from the names of folders and files, as in `train/cat/1.png`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from db.errors import BadInput
from worker.data.dataset import TEST, VALIDATION
from worker.data.split import UNASSIGNED
from worker.source_files.members import Member

MAX_LABELS = 10_000
MIN_PER_START = 2  # files with each beginning, if file names give the labels

Folders = tuple[str, ...]

SPLITS = {
    **dict.fromkeys(("train", "training"), UNASSIGNED),
    **dict.fromkeys(("val", "valid", "validation", "dev", "devel", "eval"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
_COMMON = {  # words in names of folders that say nothing of what is in them
    *("set", "sets", "data", "dataset", "split", "images", "image", "imgs", "img", "pictures"),
    *("photos", "audio", "wav", "wavs", "sounds", "clips", "midi", "texts", "text", "files", "jpg"),
    *("jpeg", "png", "samples"),
}
_WORD = re.compile(r"[^\W\d_]+")


@dataclass
class Names:
    """What the folders and names of all files tell, before their labels are known."""

    folders: set[Folders] = field(default_factory=set)
    starts: Counter[str] = field(default_factory=Counter)  # of names, before the first `_`
    splits: set[str | None] = field(default_factory=set)  # that names state, such as `train_1`

    def add(self, member: Member) -> None:
        """Note a file."""
        self.folders.add(member.parents)
        start = start_of(member)
        if start in self.starts or len(self.starts) <= MAX_LABELS:  # more are no labels
            self.starts[start] += 1
        self.splits.add(_split_of_name(member.stem))

    def layout(self, *, labelled: bool = True, named_labels: bool = False) -> "Layout":
        """What the names mean: outer folders that all share, then splits, if any, then labels.

        With `named_labels` the labels may come from names such as `{label}_{rest}.wav`, as in the
        Free Spoken Digit Dataset: if no folder is a label, all files have such a beginning, and
        there are at least two, of at least two files each. Files whose labels are known are not
        `labelled` by names: only their splits count.
        """
        skip, rests = _without_shared(self.folders)
        depth = _depth_of_splits(rests)
        bare = Layout(skip, depth, depth == 0 and _all_common(rests))
        by_name = depth is None and None not in self.splits and len(self.splits) > 1
        layout = Layout(skip, depth, bare.inner, by_name=by_name)
        if not labelled:
            return layout
        labels = {label for label, _ in map(layout.read_folders, self.folders) if label is not None}
        if labels:
            return _labelled(layout, labels)
        starts = self.starts.keys()
        named = named_labels and not by_name and "" not in starts
        if named and 2 <= len(starts) <= MAX_LABELS and min(self.starts.values()) >= MIN_PER_START:
            return Layout(skip, depth, layout.inner, sort_labels(starts), named=True)
        return layout


@dataclass(frozen=True)
class Layout:
    """What the folders around a dataset's files mean, and the names of the files."""

    skip: int  # outer folders that all files share
    split_depth: int | None  # of the folders called `train`, `test` and so on: above labels or in
    inner: bool = False  # whether one more folder, such as `images`, is inside each split
    labels: tuple[str, ...] = ()
    named: bool = False  # whether labels are the beginnings of the files' names
    by_name: bool = False  # whether the files' names state their splits

    def read(self, member: Member) -> tuple[str | None, int]:
        """The label and the split code of a file; `BadInput` if it lacks a label."""
        label, split = self.read_folders(member.parents)
        if self.named:
            label = start_of(member)
        if self.by_name:
            split = SPLITS[_split_of_name(member.stem) or "train"]
        if self.labels and label is None:
            raise BadInput("lies beside the folders of the labels, in none of them")
        return label, split

    def read_folders(self, folders: Folders) -> tuple[str | None, int]:
        """The label and the split code that the folders around a file state."""
        rest, depth, split = folders[self.skip :], self.split_depth, UNASSIGNED
        if depth is not None:
            split = SPLITS[(_split_of_folder(rest[depth]) if rest[depth:] else None) or "train"]
            rest = rest[:depth] + rest[depth + 1 + self.inner :]
        return (rest[0] if rest else None), split

    def describe_labels(self) -> str:
        """How the labels were read, for people."""
        if not self.labels:
            return "none"
        origin = "the beginnings of the files' names" if self.named else "the names of folders"
        return f"{shown(self.labels)}, from {origin}{_near_twins(self.labels)}"

    def describe_splits(self) -> str:
        """How the splits were read, for people."""
        if self.by_name:
            return "from the names of the files"
        if self.split_depth is not None:
            return f"from the names of folders{' inside the labels' if self.split_depth else ''}"
        lost = sorted(filter(_split_of_folder, self.labels)) if not self.named else []
        warning = f"; {shown(lost)} was taken as a label" if lost else ""
        return f"from the items' content{warning}"


def start_of(member: Member) -> str:
    """The part of a file's name before its first `_`, or nothing."""
    start, mark, _ = member.stem.partition("_")
    return start if mark else ""


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels in natural order."""
    found = tuple(sorted(labels, key=natural_key))
    if len(found) > MAX_LABELS:
        raise BadInput(f"{len(found):,} different labels", remedy=f"use at most {MAX_LABELS:,}")
    return found


def natural_key(label: str) -> list[tuple[int, str]]:
    """A sort key that puts `2` before `10`, and numbers before words."""
    parts = re.split(r"([0-9]+)", label)
    return [(int(part), "") if part.isdecimal() and part else (10**9, part) for part in parts]


def shown(names: Iterable[str], limit: int = 8) -> str:
    """The first of some names, and how many there are."""
    found = list(names)
    more = f", ... ({len(found):,})" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _labelled(layout: Layout, labels: set[str]) -> Layout:
    if len(labels) > MAX_LABELS:
        raise BadInput(
            f"{len(labels):,} folders, and so labels", remedy=f"use at most {MAX_LABELS:,}"
        )
    return Layout(
        layout.skip,
        layout.split_depth,
        layout.inner,
        sort_labels(labels),
        by_name=layout.by_name,
    )


def _without_shared(folders: set[Folders]) -> tuple[int, set[Folders]]:
    """How many outer folders all files share, and what is below them."""
    columns = zip(*folders, strict=False)
    skip = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, columns))
    return skip, {each[skip:] for each in folders}


def _depth_of_splits(rests: set[Folders]) -> int | None:
    """0 if the outer folders are splits, 1 if those inside them are; None if there are none.

    Files beside the folders of splits are in no split.
    """
    for depth in (0, 1):
        names = {rest[depth] for rest in rests if len(rest) > depth}
        missing = any(len(rest) == depth for rest in rests if rest)
        words = {_split_of_folder(name) for name in names}
        if not missing and len(words) > 1 and None not in words:
            return depth
    return None


def _all_common(rests: set[Folders]) -> bool:
    """Whether inside every split all files lie in a folder such as `images`, or `train` again."""
    inner = {rest[1] if len(rest) > 1 else None for rest in rests if rest}
    is_common: Callable[[str | None], bool] = lambda name: (  # noqa: E731 - used here only
        name is not None and (name.lower() in _COMMON or _split_of_folder(name) is not None)
    )
    return bool(inner) and all(map(is_common, inner))


def _split_of_folder(name: str) -> str | None:
    """The split that a folder's name states, as `train`, `val2017` and `Test_set` do."""
    words = [word for word in _WORD.findall(name.lower()) if word not in _COMMON]
    return words[0] if len(words) == 1 and words[0] in SPLITS else None


def _split_of_name(stem: str) -> str | None:
    """The split that a file's name states by its first or last word."""
    words = _WORD.findall(stem.lower())
    return next((word for word in words[:1] + words[-1:] if word in SPLITS), None)


def _near_twins(labels: Iterable[str]) -> str:
    """A warning of labels that differ only by case."""
    twins = [name for name, count in Counter(map(str.casefold, labels)).items() if count > 1]
    return f"; some differ only by case ({shown(twins)})" if twins else ""

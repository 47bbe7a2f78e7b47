"""What distinguishes two versions of a dataset: items by digest, their splits and labels."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.data.dataset import LocalDataset
from worker.data.split import hash_of

Contents = Callable[[LocalDataset], Iterable[bytes]]

LISTED = 1000  # items of each kind
SPLITS = ("train", "validation", "test")


@dataclass
class Comparison:
    """Counts of items, and the first of each kind by digest and place."""

    counts: dict[str, int] = field(default_factory=dict)
    items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Items:
    """The digest, split and label of each item, sorted by digest."""

    digests: npt.NDArray[np.uint64]
    splits: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]  # names
    places: npt.NDArray[np.int64]


def compare(one: LocalDataset, other: LocalDataset, contents: Contents) -> Comparison:
    """What was added, removed, moved to another split or given another label.

    Items are the same if their content is equal; of several equal ones in a version, the first
    counts. `contents` gives the bytes of each item in order. Memory grows by some bytes an item.
    """
    before, after = _items_of(one, contents), _items_of(other, contents)
    _, old, new = np.intersect1d(
        before.digests, after.digests, assume_unique=True, return_indices=True
    )
    found = Comparison({"same": len(old)})
    added = np.setdiff1d(np.arange(len(after.digests)), new)
    removed = np.setdiff1d(np.arange(len(before.digests)), old)
    _note(found, "added", [(after, added, "")])
    _note(found, "removed", [(before, removed, "")])
    moved = before.splits[old] != after.splits[new]
    _note(found, "moved", [(before, old[moved], "from_"), (after, new[moved], "")])
    relabelled = before.labels[old] != after.labels[new]
    _note(found, "relabelled", [(before, old[relabelled], "from_"), (after, new[relabelled], "")])
    return found


def _note(
    found: Comparison, kind: str, sides: list[tuple[_Items, npt.NDArray[np.int64], str]]
) -> None:
    found.counts[kind] = len(sides[0][1])
    rows = [dict[str, Any]() for _ in range(min(LISTED, len(sides[0][1])))]
    for items, chosen, prefix in sides:
        for row, item in zip(rows, chosen, strict=False):
            row["digest"] = f"{int(items.digests[item]):016x}"
            row[f"{prefix}index"] = int(items.places[item])
            row[f"{prefix}split"] = SPLITS[items.splits[item]]
            row[f"{prefix}label"] = str(items.labels[item]) or None
    found.items[kind] = rows


def _items_of(content: LocalDataset, contents: Contents) -> _Items:
    digests, splits = np.fromiter(map(hash_of, contents(content)), np.uint64), content.splits()
    names = np.array(content.manifest["labels"] or [""])
    numbers = content.array("labels") if content.manifest["labels"] else np.zeros(len(splits), int)
    digests, first = np.unique(digests, return_index=True)
    return _Items(digests, splits[first], names[numbers[first]], first)

"""The second pass over written items: duplicates, and the splits of what stays."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike.groups import Likeness, find_groups
from worker.cleaning.recipe import DROP, IGNORE, KEEP
from worker.cleaning.steps import Progress, StepReport
from worker.data.dataset import TRAIN, LocalDataset
from worker.data.items import ItemIndex
from worker.data.split import UNASSIGNED, Codes, Ratio, assign_more, assign_splits, stated_in

Mask = npt.NDArray[np.bool_]
EXACT, NEAR, WITHDRAWN = "exact-duplicates", "near-duplicates", "withdrawn"


@dataclass
class Settlement:
    """What is asked of the second pass; `reports` is what it did, `stated` what the data stated.

    `parent` is the version that this is an update of.
    """

    ratio: Ratio
    duplicates: str = KEEP
    near_duplicates: str = IGNORE
    parent: LocalDataset | None = None
    progress: Progress = lambda _stage, _count: None
    withdrawn: frozenset[int] = frozenset()  # digests of items that nobody may use
    reports: list[StepReport] = field(default_factory=list)
    stated: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.parent is not None:
            self.stated.update(self.parent.manifest.get("stated", ()))

    def index(self) -> ItemIndex:
        """An index for the items, of which those of the parent come first."""
        counts = self.parent.manifest["counts"] if self.parent is not None else {}
        return ItemIndex(sum(counts.values()))

    def settle(
        self,
        items: ItemIndex,
        likeness: Callable[[], Likeness] | None = None,
        *,
        cut: bool = False,
    ) -> tuple[Mask, Codes]:
        """Which items stay, and the split of each that does; near-duplicates come to the same one.

        Items of the version before stay, in their splits. Of several equal ones, a stated one of
        the test or validation data stays, else the first. A group of near-duplicates takes the
        split that one of them has already, else that of its smallest hash. If the items were `cut`
        from one text, they have their splits.
        """
        keep = self._leave_out_equals(items, cut=cut)
        if self.withdrawn:
            keep &= self._not_withdrawn(items)
        if cut:
            return keep, items.given[keep]
        hashes, given = items.hashes, items.given
        if likeness is not None and self.near_duplicates != IGNORE and keep.sum() > 1:
            self.progress(NEAR, len(items))
            compared = likeness()
            names = find_groups(compared, len(items)).names()
            before = keep.copy()
            if self.near_duplicates == DROP:
                keep &= _firsts(names, items)
            self._report_near(names, before, keep, items.inherited, compared.parameters)
            hashes, given = _shared(names, hashes, given, keep)
        self.stated.update(stated_in(items.given[items.inherited :]) - {TRAIN})
        if self.parent is None:
            return keep, assign_splits(hashes[keep], given[keep], self.ratio)
        return keep, assign_more(hashes[keep], given[keep], self.ratio, self.stated)

    def _leave_out_equals(self, items: ItemIndex, *, cut: bool) -> Mask:
        keep = np.ones(len(items), bool)
        if self.duplicates == DROP and not cut:
            keep = _firsts(items.contents, items)
        if self.parent is not None:
            known = items.contents[: items.inherited]
            keep[items.inherited :] &= ~np.isin(items.contents[items.inherited :], known)
        new = len(items) - items.inherited
        count = int((~keep).sum())
        rejects = Counter({"equal to another item": count} if count else {})
        report = StepReport(EXACT, {"do": self.duplicates}, new, rejects)
        if len(items.labels):
            report.found = _label_conflicts(items)
        self.reports.append(report)
        return keep

    def _not_withdrawn(self, items: ItemIndex) -> Mask:
        barred = np.array(sorted(self.withdrawn), np.uint64)
        found = np.isin(items.hashes, barred) | np.isin(items.contents, barred)
        if count := int(found.sum()):
            rejects = Counter({"it was withdrawn": count})
            self.reports.append(StepReport(WITHDRAWN, {}, len(items), rejects))
        return ~found

    def _report_near(
        self,
        names: npt.NDArray[np.int64],
        before: Mask,
        keep: Mask,
        inherited: int,
        parameters: Mapping[str, Any],
    ) -> None:
        sizes = np.bincount(names[before], minlength=len(names))
        count = int(before.sum() - keep.sum())
        found = {
            "groups": int((sizes > 1).sum()),
            "items": int(sizes[sizes > 1].sum()),
            "largest": int(sizes.max(initial=0)),
        }
        self.reports.append(
            StepReport(
                NEAR,
                {"do": self.near_duplicates, **parameters},
                int(before[inherited:].sum()),
                Counter({"near-duplicate of another item": count} if count else {}),
                found if found["groups"] else {},
            )
        )


def _firsts(names: npt.NDArray[Any], items: ItemIndex) -> Mask:
    """The item of each name that stays; inherited ones all stay."""
    inherited = np.arange(len(items)) < items.inherited
    held_out = (items.given != UNASSIGNED) & (items.given > 0)
    rank = np.where(inherited, 0, np.where(held_out, 1, 2))
    order = np.lexsort((rank, names))  # stable: the first of equal rank comes first
    found = names[order]
    first = np.ones(len(items), bool)
    first[order[1:]] = found[1:] != found[:-1]
    return first | inherited


def _shared(
    names: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    given: Codes,
    keep: Mask,
) -> tuple[npt.NDArray[np.uint64], Codes]:
    """Hashes and splits such that the members of a group come to the same split."""
    smallest = np.full(len(names), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, names[keep], hashes[keep])
    code = np.full(len(names), UNASSIGNED, np.uint8)
    fixed = np.flatnonzero((given != UNASSIGNED) & keep)
    code[names[fixed[::-1]]] = given[fixed[::-1]]  # the first one of a group comes last here
    free = given == UNASSIGNED
    return smallest[names], np.where(free, code[names], given)


def _label_conflicts(items: ItemIndex) -> dict[str, int]:
    """How many items have the content of another under another label."""
    order = np.lexsort((items.labels, items.hashes))
    hashes, labels = items.hashes[order], items.labels[order]
    count = int(((hashes[1:] == hashes[:-1]) & (labels[1:] != labels[:-1])).sum())
    return {"equal to an item of another label": count} if count else {}

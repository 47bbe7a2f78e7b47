"""Splits into training, validation and test: a pure function of the items' own bytes.

An item's split follows from its SHA-256, so an item stays in its split whatever else is added, and
duplicates share one.
"""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.data.dataset import TEST, TRAIN, VALIDATION

UNASSIGNED = 255  # code of an item whose split the data do not state

Ratio = tuple[int, int, int]  # train : validation : test
Codes = npt.NDArray[np.uint8]
Counts = tuple[int, int, int]  # items of training, validation and test


def hash_of(data: bytes) -> int:
    """The first 64 bits of an item's SHA-256."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def checked_ratio(ratio: Sequence[int]) -> Ratio:
    """`ratio`; `Refused` unless it is three whole numbers, none negative, the first above zero."""
    if len(ratio) != 3 or min(ratio) < 0 or ratio[0] < 1:
        raise Refused(
            f"split {list(ratio)} is not a ratio of training, validation and test",
            remedy="use three whole numbers, none negative and the first above zero, as in 90,5,5",
        )
    return (ratio[0], ratio[1], ratio[2])


def assign_more(
    hashes: npt.NDArray[np.uint64], given: Codes, ratio: Ratio, stated: Collection[int]
) -> Codes:
    """The split code of items that are added to a version which states those of `stated`.

    Unlike `assign_splits`, it does not move items into an empty split.
    """
    free = given == UNASSIGNED
    codes = given.copy()
    codes[free] = _by_hash(hashes[free], ratio, stated)
    return codes


def assign_splits(hashes: npt.NDArray[np.uint64], given: Codes, ratio: Ratio) -> Codes:
    """The split code of each item.

    `given` holds `VALIDATION` or `TEST` if the data state so, else `UNASSIGNED`; a given split gets
    no further items. If there are at least two different items, training gets one, and so does
    validation if its ratio is above zero.
    """
    if not (given == UNASSIGNED).any():
        given = np.full_like(
            given, UNASSIGNED
        )  # without items to train on, ignore the given splits
    free = given == UNASSIGNED
    codes = given.copy()
    codes[free] = _by_hash(hashes[free], ratio, stated_in(given))
    _move_one(codes, np.where(free, hashes, 0), to=TRAIN, donors=(TEST, VALIDATION))
    if ratio[VALIDATION]:
        _move_one(codes, np.where(free, hashes, 0), to=VALIDATION, donors=(TRAIN, TEST))
    return codes


def stated_in(given: Codes) -> set[int]:
    """The splits that are stated for some item."""
    return set(np.flatnonzero(np.bincount(given)).tolist()) - {UNASSIGNED}


def _by_hash(hashes: npt.NDArray[np.uint64], ratio: Ratio, stated: Collection[int]) -> Codes:
    """The splits of items by their hashes; none go to a split that is `stated`."""
    shares = [0 if code in stated else share for code, share in enumerate(ratio)]
    bounds = np.cumsum(shares[:2]) / sum(shares) * 2.0**53
    points = (hashes >> np.uint64(11)).astype(np.float64)  # 53 bits: exact as a float
    return np.searchsorted(bounds, points, side="right").astype(np.uint8)


def count_splits(codes: Codes) -> Counts:
    """The number of items in each split."""
    train, validation, test = np.bincount(codes, minlength=3)[:3].tolist()
    return train, validation, test


def _move_one(
    codes: Codes, hashes: npt.NDArray[np.uint64], *, to: int, donors: tuple[int, ...]
) -> None:
    """Give an empty split the last item, and its duplicates, of the first donor with two items."""
    if (codes == to).any():
        return
    for donor in donors:
        held = hashes[codes == donor]
        if len(held) and held.max() and (held.min() < held.max() or to == TRAIN):
            codes[(codes == donor) & (hashes == held.max())] = to
            return


def cut_points(length: int, ratio: Ratio) -> tuple[int, int]:
    """Where validation and test begin in a text of `length` characters that is cut in order."""
    train = max(1, length * ratio[0] // sum(ratio))
    validation = max(train, length * (ratio[0] + ratio[1]) // sum(ratio))
    if ratio[VALIDATION] and length > 1:
        train = min(train, length - 1)
        validation = max(train + 1, validation)
    return train, validation

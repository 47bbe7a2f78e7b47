"""What a watermark's test says of a file, by every key that an installation has had."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from db.errors import GenmillError, Unreachable, WrongKey
from worker.marks.base import ABSENT, DAMAGED, NOT_APPLICABLE, PRESENT, REVOKED, Reading

if TYPE_CHECKING:
    from worker.keys.keyring import HeldKey, Keyring

PURPOSE = "watermark"  # of the keys

Found = tuple[float, Mapping[str, JsonValue]]  # a p-value, and what else a test says
Test = Callable[[bytes], Found]


def read_by_keys(mark: str, keys: "Keyring", tests: Sequence[Test], *, level: float) -> Reading:
    """Present if a test of a secret, all keys tried, has a p-value of at most `level`.

    Damaged if only a revoked key's has. Each of `tests` is tried with all keys before the next one,
    which takes longer. Raises `WrongKey` or `Unreachable` if no key was found that is here, and one
    is not here whose mark it may be: the pinned one, or any if none is pinned.
    """
    secrets, absent = _secrets(keys)
    pinned = keys.pinned.get(PURPOSE)
    missing = absent.get(pinned) if pinned else next(iter(absent.values()), None)
    if not secrets and missing is None:
        return Reading(mark, NOT_APPLICABLE, why="there is no watermark key to test for")
    best, bounds = dict[str, Found](), dict[str, float]()  # by key
    for test in tests if secrets else ():
        for key_id, secret in secrets.items():
            found = test(secret)
            if key_id not in best or found[0] < best[key_id][0]:
                best[key_id] = found
        tried = len(secrets) * len(tests)
        bounds = {each: by_chance(found[0], tried) for each, found in best.items()}
        if min(bounds.values()) <= level:
            break

    def rank(key_id: str) -> tuple[bool, bool, float]:
        return bounds[key_id] > level, keys.get(key_id).revoked_at is not None, best[key_id][0]

    if missing is not None and min(bounds.values(), default=1.0) > level:
        raise missing
    key = min(best, key=rank)  # a thief may add the mark of a revoked one
    says = {**best[key][1], "p_value": bounds[key]}
    return _told(mark, keys.get(key), says) if bounds[key] <= level else Reading(mark, ABSENT, says)


def _told(mark: str, key: "HeldKey", says: Mapping[str, JsonValue]) -> Reading:
    """What was found by a key: of a revoked one, anybody may have made it."""
    says = {**says, "key": key.id}
    if key.revoked_at is None:
        return Reading(mark, PRESENT, says)
    return Reading(mark, DAMAGED, {**says, "trust": REVOKED}, f"its {key.told_revoked}")


def by_chance(chance: float, tests: int) -> float:
    """A p-value in view of how many tests there are, with all keys: Bonferroni's bound."""
    return min(1.0, chance * tests)


def _secrets(keys: "Keyring") -> tuple[dict[str, bytes], dict[str, GenmillError]]:
    """The secret of each key that is here, the newest first; and why the others are not."""
    found, absent = dict[str, bytes](), dict[str, GenmillError]()
    for key in reversed(keys.all(PURPOSE)):
        try:
            found[key.id] = keys.secret_of(key.id)
        except (WrongKey, Unreachable) as error:
            absent[key.id] = error
    return found, absent

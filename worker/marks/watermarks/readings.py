"""What a watermark's test says of a file, by every key that an installation has had."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from db.errors import GenmillError
from worker.marks.base import ABSENT, NOT_APPLICABLE, PRESENT, Reading

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring

PURPOSE = "watermark"  # of the keys

Found = tuple[float, Mapping[str, JsonValue]]  # a p-value, and what else a test says
Test = Callable[[bytes], Found]


def read_by_keys(mark: str, keys: "Keyring", tests: Sequence[Test], *, level: float) -> Reading:
    """Present if a test of a secret, all keys tried, has a p-value of at most `level`.

    Each of `tests` is tried with all keys before the next one, which takes longer.
    """
    secrets, missing = _secrets(keys)
    if not secrets:
        return Reading(mark, NOT_APPLICABLE, why=missing or "there is no watermark key to test for")
    chance, says, key = 1.0, dict[str, JsonValue](), ""
    for test in tests:
        for key_id, secret in secrets.items():
            found, details = test(secret)
            if found < chance or not key:
                chance, says, key = found, dict(details), key_id
        if _by_chance(chance, secrets, tests) <= level:
            break
    bound = _by_chance(chance, secrets, tests)
    says["p_value"] = bound
    present = bound <= level
    return Reading(mark, PRESENT, says | {"key": key}) if present else Reading(mark, ABSENT, says)


def _by_chance(chance: float, secrets: Mapping[str, bytes], tests: Sequence[Test]) -> float:
    """A p-value in view of how many tests there were: Bonferroni's bound."""
    return min(1.0, chance * len(secrets) * len(tests))


def _secrets(keys: "Keyring") -> tuple[dict[str, bytes], str]:
    """The secret of each key that is here, the newest first; and why one is not."""
    found, missing = dict[str, bytes](), ""
    for key in reversed(keys.all(PURPOSE)):
        try:
            found[key.id] = keys.secret_of(key.id)
        except GenmillError as error:
            missing = error.message
    return found, missing

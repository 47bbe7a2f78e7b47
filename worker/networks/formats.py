"""Formats of a family: what changed from one number to the next, and how older ones are read.

A version's `config.json`, its row and a job's pinned spec say which format their settings are of;
without a number it is 1. A family declares the way from each format to the next, and so what is
older is read as if it had been written today. No torch here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.errors import NotSupportedHere

UPGRADE = "upgrade genmill"

Settings = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What became of settings.

    `then` holds the values of those that could not be stated before, or had another default: what
    the older format meant by leaving them out.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)  # the old name -> the new one
    dropped: frozenset[str] = frozenset()
    then: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, settings: Mapping[str, Any], *, whole: bool = True) -> Settings:
        """Settings of the older format in the newer one; if they are not `whole`, `then` is not
        added, because what is left out comes from elsewhere.
        """
        kept = {
            self.renamed.get(name, name): value
            for name, value in settings.items()
            if name not in self.dropped
        }
        return {**self.then, **kept} if whole else kept


@dataclass(frozen=True)
class Migration:
    """The way from one format of a family to the next.

    `tensors` maps regular expressions to replacements, as `re.sub` takes them. Where there is no
    way, `refusal` says why older weights cannot be loaded, and `remedy` what to do instead.
    """

    params: Changes = field(default_factory=Changes)  # of training
    sampling: Changes = field(default_factory=Changes)
    tensors: Mapping[str, str] = field(default_factory=dict)
    refusal: str | None = None
    remedy: str = "train the model again"

    def rename(self, tensor: str) -> str:
        """A tensor's name in the newer format."""
        for pattern, name in self.tensors.items():
            tensor = re.sub(pattern, name, tensor)
        return tensor


def steps_from(migrations: Sequence[Migration], number: int, *, what: str) -> Sequence[Migration]:
    """The migrations that `what`, of format `number`, has still to make.

    Raises `NotSupportedHere` if it is newer than this Genmill, or older than it can read.
    """
    newest = 1 + len(migrations)
    if number > newest:
        raise NotSupportedHere(
            f"{what} was made by a newer genmill: it has format {number}, and this one reads "
            f"formats up to {newest}",
            remedy=UPGRADE,
        )
    steps = migrations[number - 1 :]
    for step in steps:
        if step.refusal is not None:
            raise NotSupportedHere(
                f"{what} has format {number}, which this genmill cannot load: {step.refusal}",
                remedy=step.remedy,
            )
    return steps

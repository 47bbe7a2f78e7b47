"""Plans of removals: what would go, how much that frees, what stays and why, and what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from db.errors import Refused
from db.holders import Held

SHOWN = 5  # things that are held, and what holds each


@dataclass
class Item:
    """Something to remove. `kept` says that it is only hidden, `because` what keeps it."""

    kind: str  # job | model | dataset
    id: str
    name: str
    size_bytes: int = 0
    objects: int = 0
    kept: bool = False
    because: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """What to remove, and what follows from it."""

    items: list[Item] = field(default_factory=list)
    follows: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)  # removals that had been interrupted

    @property
    def names(self) -> list[str]:
        """What goes, or only becomes hidden."""
        return [*self.finished, *(item.name for item in self.items)]

    @property
    def size_bytes(self) -> int:
        """How much it frees."""
        return sum(item.size_bytes for item in self.items)

    @property
    def objects(self) -> int:
        """How many objects it deletes."""
        return sum(item.objects for item in self.items)

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "dry_run": dry_run,
            "removed": self.names,
            "size_bytes": self.size_bytes,
            "items": [asdict(item) for item in self.items],
            "follows": self.follows,
        }


def refuse_held(
    held: Held, names: Mapping[str, str], *, remedy: str, removed: str = "nothing was removed"
) -> None:
    """Raise `Refused` if anything is held; `names` says what is called how, by id."""
    if held:
        told = [f"{names.get(thing, thing)}: {listed(why)}" for thing, why in held.items()]
        raise Refused(f"{removed}; {listed(told, '; ')}", remedy=remedy)


def listed(texts: Sequence[str], separator: str = ", ") -> str:
    """The first of some texts, and how many more there are."""
    more = len(texts) - SHOWN
    return separator.join([*texts[:SHOWN], *([f"and {more} more"] if more > 0 else [])])

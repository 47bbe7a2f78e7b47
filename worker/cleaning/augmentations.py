"""Augmentations that are declared with a dataset; the training loop applies them.

They are written as `flip,shift=2,colour=0.2` and recorded as numbers by name.
"""

from collections.abc import Mapping

from db.errors import Refused

Bounds = Mapping[str, tuple[float, float]]  # by name, the lowest and highest number


def parse_augmentations(text: str) -> dict[str, float]:
    """The number of each augmentation; one without a number has 1. Raises `Refused`."""
    found: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, mark, value = part.partition("=")
        if name in found:
            raise Refused(f"augmentation {name} is given twice", remedy="leave one out")
        try:
            found[name] = float(value) if mark else 1.0
        except ValueError:
            raise Refused(
                f"augmentation {part!r} is not a name and a number",
                remedy="write it as flip or shift=2",
            ) from None
    return found


def check_augmentations(found: Mapping[str, float], medium: str, bounds: Bounds) -> None:
    """Raise `Refused` for an augmentation that a medium lacks, or a number out of bounds."""
    for name, value in found.items():
        if name not in bounds:
            raise Refused.unknown("augmentation", name, bounds, of=f"medium {medium!r}")
        low, high = bounds[name]
        if not low <= value <= high:
            raise Refused(
                f"augmentation {name}={value:g} is out of bounds",
                remedy=f"use {low:g} to {high:g}",
            )

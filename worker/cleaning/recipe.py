"""How a user's files become a dataset version: the options of `dataset add`.

A recipe is recorded with the version, so that `dataset update` treats new files in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from db.errors import Refused

DROP, KEEP, IGNORE = "drop", "keep", "ignore"
CROP, PAD, STRETCH = "crop", "pad", "stretch"
CHOICES: dict[str, tuple[str, ...]] = {
    "blank": (DROP, KEEP),
    "duplicates": (DROP, KEEP),
    "near_duplicates": (KEEP, DROP, IGNORE),
    "denoise": ("median", "nlm", "spectral"),
    "fit": (CROP, PAD, STRETCH),
}
FOR_ALL = {"kind", "split", "min_size", *CHOICES} - {"denoise", "fit"}


@dataclass(frozen=True)
class Recipe:
    """What a user may ask of `dataset add`; an option of another medium is refused by the medium.

    By itself it leaves out nothing that can be read; the defaults of the command do.

    `min_size` is in pixels of the shorter side, seconds or characters. `fit` is how pictures that
    are not square become so. `loudness` is a level and its unit, such as `-23LUFS`.
    """

    kind: str | None = None
    size: int | None = None
    mode: str | None = None
    fit: str = CROP
    resample: bool | None = None
    rate: int | None = None
    split: Sequence[int] = (90, 5, 5)
    min_size: float | None = None
    blank: str = KEEP
    duplicates: str = KEEP
    near_duplicates: str = IGNORE
    denoise: str | None = None
    loudness: str | None = None
    clean: bool | None = None
    mask_personal: bool | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise Refused.unknown(name.replace("_", "-"), value, allowed)
        if self.min_size is not None and self.min_size < 0:
            raise Refused(f"min-size {self.min_size:g} is negative", remedy="use 0 or more")

    def given(self) -> dict[str, Any]:
        """The options that differ from the default, as plain data."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        default = Recipe()
        changed = {name: value for name, value in found.items() if value != getattr(default, name)}
        return changed | ({"split": list(self.split)} if "split" in changed else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `given`."""
        return cls(**(dict(data) | ({"split": tuple(data["split"])} if "split" in data else {})))

    def of_medium(self) -> dict[str, Any]:
        """The given options that only some media have."""
        return {name: value for name, value in self.given().items() if name not in FOR_ALL}

"""The protocol of an evaluation: everything that its numbers depend on besides the version."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from worker.files import canonical_json

METHOD = 2  # rises when numbers or items of the same protocol would come out differently
DIGITS = 6  # of the judge's digest in names for people


@dataclass(frozen=True)
class Protocol:
    """How a version is measured. Only numbers of equal protocols can be compared.

    `judge` is a recipe and a digest, `own-cnn:3f2a9c...`; None where there are no pictures.
    """

    dataset: str  # NAME:VERSION
    dataset_sha256: str  # of its manifest
    split: str
    count: int  # samples made
    seed: int
    judge: str | None
    asked: str  # what each sample is asked for
    sampling: dict[str, Any]
    precision: str
    method: int = METHOD

    @property
    def data(self) -> dict[str, Any]:
        """The plain data that the record keeps."""
        return asdict(self)

    @property
    def sha256(self) -> str:
        """The digest that names the protocol."""
        return hashlib.sha256(canonical_json(self.data)).hexdigest()

    @property
    def suffix(self) -> str:
        """What follows a number's name: `@own-cnn:3f2a9c:n10000:test`."""
        recipe, _, digest = (self.judge or "").partition(":")
        judge = f"{recipe}:{digest[:DIGITS]}:" if recipe else ""
        return f"@{judge}n{self.count}:{self.split}"


class Number(NamedTuple):
    """One measured number; `real` is that of real data at the same size, None if undefined."""

    value: float
    low: float  # of the 95% bootstrap interval
    high: float
    real: float | None
    n: int
    better: str  # lower | higher | closer: to `real`

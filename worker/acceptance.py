"""The rules of an order of accepted samples, as a spec holds them.

A job with such rules makes samples until `count` of them are accepted. Which ones are follows from
their numbers alone: the first `count` accepted ones, in the order of their indices.
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

TRIES = 10  # made for each sample that is wanted, at most, unless the order says otherwise
_RULE = re.compile(r"\s*([a-z_]+)\s*(>=|<=|=)\s*(\S+)\s*")
_FLAGS = {"yes": True, "no": False}
_SIGNS = {
    "confidence": ">=",
    "agreement": "=",
    "near_duplicates": "=",
    "copies_of_training": "=",
    "min_length": "=",
    "max_length": "=",
}
WRITTEN = "confidence>=0.8, agreement=yes, near_duplicates=no, copies_of_training=no, length>=20"


class Acceptance(BaseModel):
    """What a sample must meet. `judge` and `dataset` are pinned when the order is enqueued."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    confidence: float | None = Field(
        None, ge=0, le=1, description="the judge's probability of the label, or its highest"
    )
    agreement: bool = Field(False, description="the judge must see the label that was asked for")
    near_duplicates: bool = Field(True, description="whether a sample may resemble an earlier one")
    copies_of_training: bool = Field(True, description="whether a sample may be one of training")
    min_length: int | None = Field(None, ge=0, description="characters of a text")
    max_length: int | None = Field(None, ge=1, description="characters of a text")
    tries: int | None = Field(None, ge=1, description="samples made for each that is wanted")
    judge: str | None = Field(None, description="the SHA-256 of the judge")
    dataset: str | None = Field(None, description="the training data")

    @property
    def looks(self) -> bool:
        """Whether a judge has to look at the samples."""
        return (
            self.confidence is not None
            or self.agreement
            or not (self.near_duplicates and self.copies_of_training)
        )

    @property
    def asked(self) -> "Acceptance":
        """The rules without what enqueueing adds."""
        return self.model_copy(update={"judge": None, "dataset": None})


def parse_rules(text: str) -> dict[str, Any]:
    """`confidence>=0.8, near_duplicates=no` as data; raises `PydanticCustomError`."""
    found: dict[str, Any] = {}
    for part in filter(str.strip, text.split(",")):
        match = _RULE.fullmatch(part)
        if match is None:
            raise _wrong(part)
        name, sign, value = match.groups()
        if name == "length" and sign != "=":
            name, sign = {">=": "min_length", "<=": "max_length"}[sign], "="
        if _SIGNS.get(name) != sign:
            raise _wrong(part)
        if name in found:
            raise PydanticCustomError("rule", "{name} is given twice", {"name": name})
        found[name] = _FLAGS.get(value, value)
    if not found:
        raise _wrong(text)
    return found


def _wrong(part: str) -> PydanticCustomError:
    message = "{part} is not a rule: write some of {rules}"
    return PydanticCustomError("rule", message, {"part": repr(part.strip()), "rules": WRITTEN})


def _from_text(value: object) -> object:
    return parse_rules(value) if isinstance(value, str) else value


Rules = Annotated[Acceptance, BeforeValidator(_from_text)]

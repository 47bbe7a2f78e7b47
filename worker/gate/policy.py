"""Policies: the rules by which the gate decides, checked. Each medium has a default one."""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from db.errors import Refused
from worker.files import read_toml
from worker.media import find_medium
from worker.metrics.catalogue import CLOSER, METRICS, of_medium
from worker.specs import Params, Reference, parse_params

MAX_POLICY_BYTES = 2**20
LIMITS = ("at_most", "at_least", "not_worse_by")


class PrimaryRule(Params):
    """The metric that decides: it must improve by more than `margin`, with `confidence`."""

    metric: str
    direction: Literal["lower", "higher"] | None = Field(
        None, description="which is better; by default the metric's own"
    )
    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _direction_fits(self) -> Self:
        own = METRICS[self.metric].better if self.metric in METRICS else self.direction
        if self.direction not in (None, own):
            message = "{metric} is better when it is {own}; leave direction out"
            own = "closer to real data's value" if own == CLOSER else own
            raise PydanticCustomError("direction", message, {"metric": self.metric, "own": own})
        return self


class Guard(Params):
    """A limit that a version must keep, however much the primary metric improves.

    `at_most` and `at_least` are limits on its own number, `not_worse_by` on how much worse it is
    than the champion's. With `dataset`, the numbers are those on that dataset.
    """

    metric: str = Field(min_length=1, max_length=100)
    at_most: float | None = Field(None, allow_inf_nan=False)
    at_least: float | None = Field(None, allow_inf_nan=False)
    not_worse_by: float | None = Field(None, ge=0, allow_inf_nan=False)
    dataset: Reference | None = None
    optional: bool = Field(False, description="passed where the evaluation lacks the metric")

    @model_validator(mode="after")
    def _has_one_limit(self) -> Self:
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError("limits", "give one of at_most, at_least and not_worse_by")
        return self

    @property
    def rule(self) -> str:
        """Which limit it has."""
        return next(name for name in LIMITS if getattr(self, name) is not None)

    @property
    def limit(self) -> float:
        """The limit."""
        return float(getattr(self, self.rule))


class Noise(Params):
    """The standard deviation of the primary metric between training seeds; unknown: not counted."""

    training_sd: float | None = Field(None, ge=0, allow_inf_nan=False)


class Policy(Params):
    """The rules by which the gate decides whether a version becomes the champion."""

    primary: PrimaryRule
    guard: tuple[Guard, ...] = Field((), max_length=50)
    noise: Noise = Noise()
    resamples: int = Field(1000, ge=100, le=100_000)
    seed: int = Field(0, ge=0, lt=2**63)

    @field_validator("guard", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        if isinstance(value, dict):
            raise PydanticCustomError("guard", "expected a list; in TOML, write [[guard]]")
        return value


def policy_for(medium: str, given: dict[str, Any]) -> Policy:
    """The policy of a file's data. A section that it lacks is the medium's default.

    Raises `Refused` with the name of each wrong key, and of a metric that the medium does not have.
    """
    policy = parse_params(Policy, {**find_medium(medium).policy, **given}, what="the policy")
    known, where = of_medium(medium), f"the policy: an evaluation of {medium}"
    for name in (policy.primary.metric, *(guard.metric for guard in policy.guard)):
        if name not in known:
            raise Refused.unknown("metric", name, known, of=where)
    return policy


def to_toml(policy: Policy) -> str:
    """The policy as a file, with every value that is set."""
    data = policy.model_dump(mode="json", exclude_none=True)
    guards, tables = data.pop("guard"), {name: data.pop(name) for name in ("primary", "noise")}
    lines = _assignments(data)
    for name, values in tables.items():
        lines += ["", f"[{name}]", *_assignments(values)]
    for values in guards:
        lines += ["", "[[guard]]", *_assignments(values)]
    return "\n".join(lines) + "\n"


def read_policy(path: Path) -> dict[str, JsonValue]:
    """The data of a policy file. Raises `BadInput` with the line if it is not TOML."""
    return read_toml(path, "policy", limit_bytes=MAX_POLICY_BYTES)


def _assignments(values: dict[str, Any]) -> list[str]:
    """Lines of TOML: its strings, numbers and booleans are written as JSON's are."""
    return [f"{name} = {json.dumps(value)}" for name, value in values.items()]

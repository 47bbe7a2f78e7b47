"""What an import finds out about a model. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Inspection:
    """What an import found out by loading and trying a model."""

    defaults: Mapping[str, Any] = field(default_factory=dict)  # parameters where none are stated
    params: Mapping[str, Any] = field(default_factory=dict)  # parameters whatever is stated
    record: Mapping[str, Any] = field(default_factory=dict)  # for Genmill's part of `config.json`
    metrics: Mapping[str, Any] = field(default_factory=dict)  # for people to see

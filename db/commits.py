"""What a worker commits, as plain data, for code that knows no database."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NewMember:
    """One sample inside an object: bytes `offset` to `offset + size`, and their SHA-256."""

    sample: int
    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class NewArtifact:
    """An object that is in the store and is about to be recorded.

    `kind` is samples, weights, preview or report; `name` is its file name when downloaded, unique
    within its shard.
    """

    kind: str
    name: str
    key: str
    sha256: str
    size: int
    media_type: str
    members: Sequence[NewMember] = field(default=())

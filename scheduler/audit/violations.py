"""What an audit finds: a sentence, and what it is about."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_BACKOFF_S = 60
OWN_STORE = "own_store"  # the table that a missing sentinel concerns


@dataclass(frozen=True)
class Violation:
    """One broken invariant.

    `table` and `id` name the row whose object is missing or damaged, and `key` that object.
    """

    text: str
    table: str = ""
    id: str = ""
    key: str = ""

    def __str__(self) -> str:
        return self.text


Violations = Iterator[Violation]


@dataclass(frozen=True)
class Bounds:
    """How long what may take, and which times are possible.

    `grace` is how long a shard or job may be left alone before it counts as forgotten: lease,
    deadline and loop, and the time to restart a process that was killed. Times on record lie
    between `began`, if it is known, and now; leases end within `lease`, pauses within `pause`.
    """

    grace: timedelta
    lease: timedelta
    pause: timedelta = timedelta(seconds=MAX_BACKOFF_S)
    began: datetime | None = None
    max_claims: int = 8
    workers_live: bool = True  # without any, waiting is no fault

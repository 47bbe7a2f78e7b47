"""The contract of a target, and what all kinds have in common.

An item is put under a key that follows from what it is, so that putting it again, after a crash or
by another worker, leaves one item. The methods of a target are called from several threads.

What goes wrong is told by the type of the error: `Unreachable` for a target that cannot be used
now, which is a pause for the whole job; `ItemRefused` for an item that the target does not take,
which concerns that item alone; `NotFound` for an item that is not there.

Others may put something else in the place of an item's file. Comparing finds it altered (`NoFile`),
and `put` replaces it. What cannot be replaced without a loss, such as a folder with files in it, or
lies in the place of a folder above, is left alone, also by `take_down`; `put` raises `Obstructed`,
which refuses the item. No link below the target's address is followed, as far as a target shows
them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field, JsonValue

from db.causes import Cause
from db.errors import GenmillError, NotFound, Unreachable
from worker.complaints import matching
from worker.keys.keyring import Keyring
from worker.mark_profile import NAMED
from worker.specs import Params, parse_params

ROUNDS = 5  # of reading what is there and writing what follows from it, until none was changed

Record = Mapping[str, JsonValue]  # what an item says of itself


class TargetSettings(Params):
    """What can be set of a target of any kind. Never a secret."""

    address: str = Field(min_length=1, max_length=1000, description="where it is")
    concurrency: int = Field(4, ge=1, le=64, description="items that are put at once")
    rate: float | None = Field(
        None, gt=0, le=10_000, description="items a second, of all workers; default: no limit"
    )
    tries: int = Field(4, ge=1, le=20, description="tries of a transfer before the job pauses")
    timeout_s: float = Field(60, gt=0, le=600, description="seconds that a transfer may take")
    marks: Annotated[str, matching(r"[^\0]+", NAMED)] | None = Field(
        None,
        description="the profile of marks that a sample must carry to be published here, built in "
        "or the file of one; default: that of its job, whichever it is",
    )


S = TypeVar("S", bound=TargetSettings)


@dataclass(frozen=True)
class Item:
    """Something to publish: its `key` at every target, and what it is."""

    key: str  # plain names joined by slashes, as in JOB/000000017.png
    event: str  # the id of this publishing of it; another once it was taken down in between
    sha256: str
    media_type: str
    job: str | None = None  # that made the sample
    sample: int | None = None
    model: str | None = None  # the version that made it, or that it is a file of: digits:3
    marks: str | None = None  # the profile of its marks
    dataset: str | None = None  # that the model learnt from: mnist:1


@dataclass(frozen=True)
class Delivery:
    """An item with its bytes and record."""

    item: Item
    data: bytes
    record: Record


class Presence(Enum):
    """How an item is at a target, compared with what `put` leaves there."""

    UNCHANGED = "unchanged"
    ALTERED = "altered"  # or some of what belongs to it, such as its record or its page
    MISSING = "missing"


def compare_files(wanted: Mapping[str, bytes], read: Callable[[str], bytes]) -> Presence:
    """How an item is there that consists of files, the first of which is its own.

    `read` returns the bytes of one by its name, and raises `NotFound` and `NoFile`.
    """
    own, unchanged = next(iter(wanted)), True
    for name, data in wanted.items():
        try:
            unchanged &= read(name) == data
        except NoFile:
            unchanged = False
        except NotFound:
            if name == own:
                return Presence.MISSING
            unchanged = False
    return Presence.UNCHANGED if unchanged else Presence.ALTERED


class ItemRefused(GenmillError):
    """The target does not take the item."""

    cause = Cause.WORK
    lasting = True


class NotTaken(ItemRefused):
    """The target does not take the item, and keeps nothing of it."""

    cause = Cause.WORK
    lasting = True


class TargetAway(Unreachable):
    """The target cannot be used now; `retry_after_s` is what it says of when it can be again."""

    cause = Cause.SERVICE

    def __init__(
        self, message: str, *, remedy: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class NoFile(NotFound):
    """Something else lies in the place of a file: a folder, a link, a pipe or a device."""

    cause = Cause.WORK
    lasting = True


class Obstructed(TargetAway):
    """What lies in the place of a file, or of a folder above it, lets no file be written there."""

    cause = Cause.SERVICE


def record_json(record: Record) -> bytes:
    """A record as a file of its own, for people too."""
    return json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n"


def parse_foreign(data: bytes) -> Any:
    """The JSON of a file at a target, which others may have written. Raises `ValueError`.

    That is also for JSON that cannot be written again: nested too deep, or half a character.
    """
    text = data.decode()
    try:
        found = json.loads(text)
        if "\\u" in text:  # ours has none
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return found


class Target(ABC, Generic[S]):
    """A place to publish to, opened with its settings and secrets.

    A remote id says where an item is at the target. It follows from the item, mostly from its key.
    """

    title: ClassVar[str]  # of the kind, for people
    schema: ClassVar[type[TargetSettings]]
    secrets: ClassVar[Mapping[str, str]] = {}  # what each one is, by its name
    gives_back: ClassVar[bool] = True  # whether `fetch`, `compare` and `list` work
    batched: ClassVar[bool] = False  # whether several are put, and taken down, at once
    lists_all: ClassVar[bool] = False  # whether `finish` writes anew what shows all items
    shows_keys: ClassVar[bool] = False  # whether it shows strangers who signed an item

    def __init__(self, settings: S, secrets: Mapping[str, str]) -> None:
        self.settings = settings
        self._secrets = secrets
        self.keys = Keyring(())  # the installation's, without secrets, where it `shows_keys`

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> S:
        """Settings by the kind's own schema. Raises `Refused`, repeating no part of the address."""
        if address := settings.get("address"):
            cls.place(str(address))
        kind = cls.__module__.rpartition(".")[2]
        return parse_params(cls.schema, settings, what=f"{kind} target")  # type: ignore[return-value] # the schema's

    @classmethod
    @abstractmethod
    def place(cls, address: str) -> Any:
        """What an address names. Raises `Refused`, repeating no part of it."""

    @abstractmethod
    def __str__(self) -> str:
        """Where it is, for people; no secret."""

    @abstractmethod
    def check(self) -> None:
        """Raise `Unreachable` unless items can be put and taken down now; leaves nothing behind."""

    @abstractmethod
    def locate(self, item: Item) -> str:
        """The remote id that an item has, or would have."""

    @abstractmethod
    def put(self, item: Item, data: bytes, record: Record) -> str:
        """Put an item, in place of one with its key if there is one; its remote id.

        When it returns, the item is there whole, or will be once `finish` has returned. When it
        raises anything but `NotTaken`, some of it may be there. `Obstructed` refuses the item.
        """

    def put_all(self, deliveries: Sequence[Delivery]) -> Sequence[str | GenmillError]:
        """Put several at once where the target can; each one's remote id, or what went wrong."""
        raise NotImplementedError

    @abstractmethod
    def fetch(self, remote_id: str) -> bytes:
        """The bytes of an item. Raises `NotFound`."""

    @abstractmethod
    def compare(self, delivery: Delivery) -> Presence:
        """How an item is there, with all that `put` leaves of it; `put` repairs what is not so."""

    @abstractmethod
    def list(self) -> Iterator[str]:
        """The remote ids of all items that are there, in no order."""

    @abstractmethod
    def take_down(self, remote_id: str) -> None:
        """Remove an item, if it is there, and what a killed `put` may have left of it."""

    def take_down_all(self, remote_ids: Sequence[str]) -> None:
        """Remove several, at once where the target can."""
        for each in remote_ids:
            self.take_down(each)

    def finish(self, changed: Collection[str] = ()) -> None:
        """Bring up to date what is made from all items, such as pages and cards.

        What is said there of the items `changed`, by remote id, is made anew: a worker that was
        killed may have put them and not said so.

        Whoever put or took down an item calls this afterwards, before that is committed. May be
        called by several workers at once, and again: what was made from another list of items than
        the latest does not stay.
        """

    def open(self) -> None:
        """Make what its threads share; connects to nothing yet; may be called again.

        Raises `MissingPackage`, and `Refused` for a secret that is none.
        """

    def close(self) -> None:
        """Close connections."""


AnyTarget = Target[Any]

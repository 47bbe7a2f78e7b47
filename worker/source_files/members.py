"""The files of a user, one after another, within limits for hostile ones.

Every file is taken, ignored because the system keeps it for itself, or left out with a reason.
Nothing is extracted to disk: a name is a label or a line of a report, never a path to write to.
Whatever keeps one file from being read is `BadInput`, so that it is left out and the others are
read; `Unreachable` where it is the disk, the network or this process that keeps all from that.
"""

import errno
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, TypeVar

from db.causes import Cause
from db.errors import BadInput
from db.path_errors import explain, named_path, path_error
from worker.source_files.kinds import AS_ROWS, AS_TEXT, describe_head, describe_name

MAX_MEMBERS = 10_000_000
MAX_MEMBER_BYTES = 64 << 20
MAX_RATIO = 200  # unpacked to packed size; real images and texts stay far below
MAX_REPORTED = 1000
MAX_REASONS = 20  # of a step that are counted apart
DECODE = "decode"  # the step that reads a file
SMALL = 1 << 20  # bytes up to which any ratio is harmless
DAMAGED = {errno.EIO, errno.EUCLEAN, errno.EBADMSG}  # on its disk: others may be whole

Found = TypeVar("Found")


@dataclass(frozen=True)
class Reject:
    """A file or line that was left out, and why."""

    name: str
    reason: str


class Unfit(BadInput):
    """An item that can be read, but that a `step` of cleaning leaves out."""

    cause = Cause.WORK
    lasting = True

    def __init__(self, message: str, *, step: str) -> None:
        super().__init__(message)
        self.step = step


class Rejects:
    """What was left out: all are counted by step and reason, the first `MAX_REPORTED` are kept.

    System files are no part of a dataset, so they are counted apart.
    """

    def __init__(self) -> None:
        self.count = 0
        self.by_step: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.first: list[Reject] = []
        self.ignored: set[str] = set()  # names of system and hidden files

    def add(self, name: str, reason: str | BadInput) -> None:
        """Note that the file or line `name` was left out; an `Unfit` knows by which step."""
        self.count += 1
        counts = self.by_step[reason.step if isinstance(reason, Unfit) else DECODE]
        # without its details, so that equal reasons are counted together
        kind = re.sub(r"\d[\d,.]*", "N", str(reason).partition(":")[0].partition(";")[0])
        counts[kind if kind in counts or len(counts) < MAX_REASONS else "other reasons"] += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(Reject(name, str(reason)))

    def ignore(self, name: str) -> None:
        """Note a system or hidden file."""
        if len(self.ignored) < MAX_REPORTED:
            self.ignored.add(name)


class Opener(Protocol):
    """Opens a file of at most `max_bytes`; `BadInput` if it cannot or must not be opened."""

    def __call__(self, max_bytes: int) -> AbstractContextManager[IO[bytes]]:
        """Open the file."""


@dataclass(frozen=True)
class Member:
    """A file: its name inside the folder or archive, with `/`, and how to open it."""

    name: str
    opener: Opener

    def open(self, max_bytes: int | None = None) -> AbstractContextManager[IO[bytes]]:
        """Open it for reading; `BadInput` if it is larger than `max_bytes` or cannot be opened."""
        return self.opener(MAX_MEMBER_BYTES if max_bytes is None else max_bytes)

    @property
    def parents(self) -> tuple[str, ...]:
        """The folders around it, outermost first."""
        return PurePosixPath(self.name).parts[:-1]

    @property
    def stem(self) -> str:
        """Its name without folders and suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of its name, in lower case, with the dot."""
        return PurePosixPath(self.name).suffix.lower()


@contextmanager
def read_errors(name: str = "") -> Iterator[None]:
    """Raise `BadInput` in place of the system's errors, such as a lack of permission.

    `name` names the file in the error, if the caller does not. What is no fault of one file is
    `Unreachable` or `ShortOfMemory`, such as a network disk that is away.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a decoder's error, not the system's
            raise
        path, where = named_path(error, Path(name)), f"{name}: " if name else ""
        raise_if_away(error, path)
        reason, _ = explain(error, path)
        raise BadInput(f"{where}cannot be read: {reason}") from error


def raise_if_away(error: OSError, path: Path) -> None:
    """Raise what keeps more than one file from being read, if that is so."""
    if error.errno is not None and error.errno not in DAMAGED:
        found = path_error(error, path, verb="read", kind=BadInput)
        if not isinstance(found, BadInput):
            raise found from error


def read_each(
    found: Iterable[Member],
    suffixes: Collection[str],
    read: Callable[[Member], Found],
    rejects: Rejects,
) -> Iterator[Found]:
    """What `read` returns for each file with one of the `suffixes`.

    Files with another suffix, and those for which `read` raises `BadInput`, go to `rejects`.
    """
    for member in found:
        try:
            if member.suffix not in suffixes:
                raise _other_kind(member, suffixes)
            made = read(member)
        except BadInput as error:
            known = None if isinstance(error, Unfit) else _better_known(member)
            rejects.add(member.name, known or error)
        else:
            yield made


def _better_known(member: Member) -> BadInput | None:
    """What a file is by its first bytes, such as a web page, or why it cannot be opened at all."""
    try:
        with member.open() as file:
            kind = describe_head(file.read(64))
    except BadInput as error:
        return error if isinstance(error.__cause__, OSError) else None
    return BadInput(f"in truth {kind[0]}", remedy=kind[1]) if kind else None


def _other_kind(member: Member, suffixes: Collection[str]) -> BadInput:
    reason = f"its name ends in none of {', '.join(sorted(suffixes))}"
    what, remedy = describe_name(member.name) or ("", "")
    useful = remedy not in {"", AS_TEXT, AS_ROWS}  # those are for a file that is given by itself
    return BadInput(f"{reason} ({what})" if what else reason, remedy=remedy if useful else None)


def check_size(size: int, max_bytes: int, *, packed: int | None = None) -> None:
    """Refuse a file larger than `max_bytes`, or packed so well that it must be a bomb."""
    if size > max_bytes:
        raise BadInput(f"{size:,} bytes, more than the limit of {max_bytes:,}")
    if packed is not None and size > SMALL and size > MAX_RATIO * packed:
        raise BadInput(f"packed more than {MAX_RATIO} to 1, like an archive bomb")


@contextmanager
def unpacking(read: Callable[[], IO[bytes]]) -> Iterator[IO[bytes]]:
    """Open a member of an archive by `read`; its damage is `BadInput`, whatever the packer raises.

    A caller that reads on until the end is told of damage there too.
    """
    try:
        with read() as file:
            yield file
    except (BadInput, GeneratorExit):
        raise
    except Exception as error:  # each decompressor has its own errors for damaged data
        if isinstance(error, OSError):
            raise_if_away(error, Path("the archive"))
        raise BadInput(f"cannot be unpacked: {str(error) or type(error).__name__}") from error


def in_memory(data: bytes) -> IO[bytes]:
    """A file of `data`, because image headers are read byte by byte, at which archives are slow."""
    return io.BytesIO(data)

"""Taking samples out of a shard's object: pictures, sounds from a tar, texts from JSONL.

Every sample is compared with its digest on record before it gets a name, and names are generated
from its number. Nothing that the object says is used as a path.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from db.errors import DigestMismatch
from db.tables import Member

MAX_RECORD_BYTES = 64 << 20
SUFFIXES = (
    ".png",
    ".wav",
    ".json",
)  # of what a member's bytes are; .json is a line of text's JSONL

Sample = tuple[Member, bytes, bytes]  # its row, its bytes, its JSON record


def file_of(member: Member) -> str:
    """The generated file name of a sample's bytes, as in `000000017.png`."""
    suffix = Path(member.name).suffix
    return f"{member.sample:09d}{suffix if suffix in SUFFIXES else '.bin'}"


def is_unpacked(folder: Path, members: Sequence[Member]) -> bool:
    """Whether every sample lies in `folder` already, and its companion, byte for byte."""
    return all(_is_whole(folder / file_of(member), member) for member in members)


def unpack(part: Path, members: Sequence[Member], folder: Path, *, tar: bool) -> None:
    """Write each sample with its JSON record beside it; a text also as `000000017.txt`.

    Raises `DigestMismatch`.
    """
    for member, data, record in read_samples(part, members, tar=tar):
        path = folder / file_of(member)
        put(path.with_suffix(_companion(member)), record if tar else _text_of(data))
        put(path, data)


def append_records(part: Path, members: Sequence[Member], lines: Path, *, tar: bool) -> None:
    """Append each sample's JSON record to `lines`, one a line. Raises `DigestMismatch`."""
    with lines.open("ab") as file:
        for _, _, record in read_samples(part, members, tar=tar):
            file.write(record + b"\n")


def read_samples(part: Path, members: Sequence[Member], *, tar: bool) -> Iterator[Sample]:
    """Yield the samples of an object on this disk, each compared with its digest."""
    with part.open("rb") as file:
        for member in members:
            file.seek(member.offset)
            data = file.read(member.size)
            if hashlib.sha256(data).hexdigest() != member.sha256:
                raise DigestMismatch(
                    f"sample {member.sample}: its bytes are not those on record; fetch it again"
                )
            if tar:
                file.seek(-member.size % tarfile.BLOCKSIZE, 1)
            yield member, data, _next_member(file.read, member) if tar else data


def _next_member(read: Callable[[int], bytes], member: Member) -> bytes:
    """The JSON record that follows a picture or sound in its tar."""
    try:
        header = tarfile.TarInfo.frombuf(read(tarfile.BLOCKSIZE), "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise DigestMismatch(f"sample {member.sample} has no record after it: {error}") from None
    if not header.isreg() or header.size > MAX_RECORD_BYTES:
        raise DigestMismatch(f"sample {member.sample} has no record after it, but {header.name!r}")
    return read(header.size)


def _companion(member: Member) -> str:
    return ".txt" if file_of(member).endswith(".json") else ".json"


def _is_whole(path: Path, member: Member) -> bool:
    try:
        data, beside = path.read_bytes(), path.with_suffix(_companion(member)).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == member.sha256 and beside == _content_beside(data)


def _content_beside(data: bytes) -> bytes:
    """What belongs beside a sample: a text of its line, or the record that a file holds."""
    # Pillow takes long to load, and only a download that goes on needs it
    from worker.media.samples.record import read_record, to_json  # noqa: PLC0415

    if data.startswith(b"{"):
        return _text_of(data)
    return to_json(read_record(data)).encode()


def _text_of(line: bytes) -> bytes:
    text: str = json.loads(line)["text"]
    return text.encode()


def put(path: Path, data: bytes) -> None:
    """Write a file: there whole, or not there."""
    # no fsync for each of thousands: what a crash tears is found by its digest, and fetched again
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)

"""The samples in a file as it was downloaded: their records, and the digests of their bytes.

A picture, a sound or a text has its record inside, and so do MIDI and WAV files made of notes. A
text file of words alone is known by the JSON file beside it.
"""

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from db.errors import BadInput, raise_outage
from db.path_errors import reading
from worker import media
from worker.media.samples.parquet import load_pyarrow
from worker.media.samples.record import Record, parse_record

MAX_BYTES = 256 << 20  # of a sample

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MIDI = b"MThd"
# of a table, what finds a sample and tells it from others
_COLUMNS = ("weights_sha256", "seed", "index", "model", "custom_id", "label")


class Piece(NamedTuple):
    """A sample's record, and the digest of its bytes if the file holds them."""

    record: Record
    sha256: str | None


def read_pieces(path: Path) -> Iterator[Piece]:
    """Every sample whose record is in a file; none for a file of anything else.

    Raises `BadInput` for a file that cannot be read.
    """
    with reading(path):
        yield from _READERS.get(path.suffix.lower(), _single)(path)


def read_file(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file; the first ones of a file that is too long for a sample."""
    with reading(path), path.open("rb") as file:
        return file.read(most)


def find_piece(data: bytes) -> Piece:
    """The sample with these bytes, or with this record alone. Raises `BadInput`."""
    record = _record_in(data)
    if not _is_complete(record):
        raise BadInput("has no complete record of Genmill")
    # the record of a text is the text; that of anything else has not its bytes
    own = data.startswith(b"{") == ("text" in record) and "file_name" not in record
    return Piece(record, hashlib.sha256(data).hexdigest() if own else None)


def _record_in(data: bytes) -> Record:
    if data.startswith(_MIDI):
        from worker.music.midi import read_comment  # noqa: PLC0415 - mido takes long to load

        return parse_record(read_comment(data), "the MIDI file")
    return media.read_record(data)


def _is_complete(record: Record) -> bool:
    digest, numbers = record.get("weights_sha256"), (record.get("seed"), record.get("index"))
    return (
        isinstance(digest, str)
        and _DIGEST.fullmatch(digest) is not None
        and all(type(each) is int and 0 <= each < 2**63 for each in numbers)
    )


def _found(data: bytes) -> Iterator[Piece]:
    with suppress(BadInput):
        yield find_piece(data)


def _single(path: Path) -> Iterator[Piece]:
    data = read_file(path)
    found = list(_found(data))
    beside = path.with_suffix(".json")
    if not found and beside != path and beside.is_file():
        found = [each for each in _found(read_file(beside)) if _is_text_of(each.record, data)]
    yield from found


def _is_text_of(record: Record, data: bytes) -> bool:
    text = record.get("text")
    return isinstance(text, str) and text.encode("utf-8", "replace") == data


def _lines(path: Path) -> Iterator[Piece]:
    with path.open("rb") as file:
        for line in file:
            yield from _found(line.removesuffix(b"\n"))


def _members(path: Path) -> Iterator[Piece]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                sample = member.isfile() and not member.name.endswith(".json")
                if sample and (file := tar.extractfile(member)) is not None:
                    yield from _found(file.read(MAX_BYTES))
    except tarfile.TarError:
        return


def _rows(path: Path) -> Iterator[Piece]:
    arrow, parquet = load_pyarrow("give files of another format")
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file)
            content = [f.name for f in table.schema_arrow if arrow.types.is_struct(f.type)]
            known = [name for name in _COLUMNS if name in table.schema_arrow.names]
            batches = table.iter_batches(batch_size=256, columns=known + content)
            yield from (piece for batch in batches for piece in _of_batch(batch, known, content))
        except Exception as error:  # the library raises many kinds of errors
            raise_outage(error)


def _of_batch(batch: Any, known: list[str], content: list[str]) -> Iterator[Piece]:
    for row in batch.to_pylist():
        record = {name: row[name] for name in known}
        if _is_complete(record):
            yield Piece(record, _digest_in(row, content))


def _digest_in(row: dict[str, Any], columns: list[str]) -> str | None:
    for name in columns:
        data = (row[name] or {}).get("bytes")
        if isinstance(data, bytes):
            return hashlib.sha256(data).hexdigest()
    return None


_READERS: dict[str, Callable[[Path], Iterator[Piece]]] = {
    ".jsonl": _lines,
    ".tar": _members,
    ".parquet": _rows,
}

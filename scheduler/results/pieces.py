"""The samples in a file as it was downloaded: their records, and the digests of their bytes.

A picture, a sound or a text has its record inside, and so do MIDI and WAV files made of notes. A
text file of words alone is known by the JSON file beside it. Any file may have a C2PA manifest
beside it.
"""

import base64
import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from db.errors import BadInput, raise_outage
from db.path_errors import reading
from worker import media
from worker.media.samples.containers import MAX_RECORD_BYTES
from worker.media.samples.parquet import load_pyarrow
from worker.media.samples.record import CREDENTIALS, Record, begins_as_object, parse_record

MAX_BYTES = 256 << 20  # of a sample
MAX_PARTS = 40_000  # of a file: as a PNG file of this size has, in pieces of 8 KiB
MAX_UNFOLDED = 100  # times the size of its file, that a table may be in memory if it is a large one
ROWS_AT_ONCE = 8  # of a table that may not say how large its rows are
ROW_BYTES = 100  # of a row beside its sample
SIDECAR = ".c2pa"  # of a C2PA manifest that lies beside a file of the same name
MAX_SIDECAR = 2 << 20  # bytes, more than are read of one

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MIDI = b"MThd"
# of a table, what finds a sample and tells it from others
_COLUMNS = ("weights_sha256", "seed", "index", "model", "custom_id", "label")
_TOLD = ("model", "weights_sha256", "seed", "index")  # of those, what a verdict tells
_NAMES_SAMPLE = ("weights_sha256", "seed", "index")
_TEXT = ("text", CREDENTIALS)  # of one without any other content


class Piece(NamedTuple):
    """A sample's record, and the digest of its bytes if the file holds them."""

    record: Record
    sha256: str | None


class Item(NamedTuple):
    """A part of a file that may be a sample: its place and bytes, and the sample if it is one."""

    place: str  # inside a file with many; "" if it is the file
    data: bytes
    piece: Piece | None
    refused: str = ""  # why it, or the rest of a file, was not looked at
    manifest: bytes = b""  # a C2PA manifest store beside it
    has_other_record: bool = False  # whether the record beside it is another sample's


def read_pieces(path: Path) -> Iterator[Piece]:
    """Every sample whose record is in a file; none for a file of anything else.

    Raises `BadInput` for a file that cannot be read.
    """
    yield from (item.piece for item in read_items(path) if item.piece is not None)


def read_items(path: Path) -> Iterator[Item]:
    """Every part of a file that may be a sample, or may not; of most files, the whole file.

    A file of many samples that ends too soon, is of no such format or has none in it gives an item
    of its own that says so. Raises `BadInput` for a file that cannot be read.
    """
    empty = True
    with reading(path):
        for item in _READERS.get(path.suffix.lower(), _single)(path):
            empty = False
            yield item
    if empty:
        yield _unread("there is nothing in it")


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
    own = begins_as_object(data) == ("text" in record) and "file_name" not in record
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


def _piece(data: bytes) -> Piece | None:
    with suppress(BadInput):
        return find_piece(data)
    return None


def _single(path: Path) -> Iterator[Item]:
    item, beside = _item("", read_file(path)), path.with_suffix(".json")
    if beside != path and not item.refused and beside.is_file():
        item = _with_record(item, _piece(read_file(beside)))
    sidecar = path.with_suffix(SIDECAR)
    if sidecar != path and not item.refused and sidecar.is_file():
        item = item._replace(manifest=read_file(sidecar, MAX_SIDECAR))
    yield item


def _with_record(item: Item, beside: Piece | None) -> Item:
    """A file with the record beside it, if that is its own."""
    if beside is None:
        return item
    if item.piece is None and is_text_of(beside.record, item.data):
        return item._replace(piece=beside)
    own = item.piece.record if item.piece else {}
    is_own = all(own.get(name) == beside.record.get(name) for name in _NAMES_SAMPLE)
    return item._replace(has_other_record=not is_own)


def _item(place: str, data: bytes) -> Item:
    why = _refusal(data)
    return Item(place, data, None if why else _piece(data), why)


def _refusal(data: bytes) -> str:
    """Why bytes are not looked at: it would take minutes for their many parts."""
    with suppress(BadInput):
        if any(islice(media.medium_of(data).parts(data), MAX_PARTS, None)):
            return f"it has over {MAX_PARTS:,} parts"
    return ""


def is_text_of(record: Record, data: bytes) -> bool:
    """Whether bytes are the text of a record, and nothing else."""
    text = record.get("text")
    return isinstance(text, str) and text.encode("utf-8", "replace") == data


def _lines(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        lines = iter(partial(file.readline, MAX_RECORD_BYTES), b"")
        for number, line in enumerate(lines, 1):
            place = f"line {number}"
            if len(line) < MAX_RECORD_BYTES or line.endswith(b"\n"):
                yield _item(place, line.removesuffix(b"\n"))
                continue
            for rest in iter(partial(file.readline, 1 << 20), b""):
                if rest.endswith(b"\n"):
                    break
            yield Item(place, b"", None, f"the line is over {MAX_RECORD_BYTES:,} bytes")


def _unread(why: str) -> Item:
    return Item("", b"", None, refused=why)


def _members(path: Path) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined] # it would remember them all
                if member.issparse():  # a few bytes may be as many gigabytes
                    yield Item(member.name, b"", None, "it is a sparse file")
                    continue
                sample = member.isfile() and not member.name.endswith(".json")
                if sample and (file := tar.extractfile(member)) is not None:
                    yield _item(member.name, file.read(MAX_BYTES))
            whole = _has_end(tar)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):
        whole = False  # damaged, or headers of headers without end
    if not whole:
        yield _unread("it is cut off, or not readable as tar")


def _has_end(tar: tarfile.TarFile) -> bool:
    """Whether zeros follow the last member; what is no header ends the iteration too."""
    tar.fileobj.seek(tar.offset)
    return tar.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _rows(path: Path) -> Iterator[Item]:
    arrow, parquet = load_pyarrow("give files of another format")
    left = max(MAX_BYTES, MAX_UNFOLDED * path.stat().st_size)
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file)
            content = [f.name for f in table.schema_arrow if arrow.types.is_struct(f.type)]
            names = set(table.schema_arrow.names)
            known = [name for name in _COLUMNS if name in names]
            own = content or [name for name in _TEXT if name in names]
            at_once = _rows_at_once(table.metadata)
            batches = table.iter_batches(batch_size=at_once, columns=known + own)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                item = _row(f"row {number}", row, known, content)
                left -= len(item.data) + len(item.manifest) + ROW_BYTES
                if left < 0:
                    why = f"the rows up to here are {MAX_UNFOLDED} times as large as their file"
                    yield Item(item.place, b"", None, why)
                    return
                yield item
        except Exception as error:  # the library raises many kinds of errors
            raise_outage(error)
            yield _unread("it is cut off, or not readable as Parquet")


def _rows_at_once(table: Any) -> int:
    """So few rows that memory holds them, though each may repeat the largest value of a column.

    Sizes of columns would tell more, but pyarrow ends the process where those are damaged.
    """
    groups = (table.row_group(number) for number in range(table.num_row_groups))
    largest = max((group.total_byte_size for group in groups), default=0)
    return max(1, min(ROWS_AT_ONCE, (64 << 20) // max(1, largest)))


def _row(place: str, row: dict[str, Any], known: list[str], columns: list[str]) -> Item:
    record = {name: row[name] for name in known}
    found = ((row[name] or {}).get("bytes") for name in columns)
    data = next((each for each in found if isinstance(each, bytes)), None)
    if data is not None and (why := _refusal(data)):
        return Item(place, data, None, why)
    if data is None:
        return _text_row(place, row, record)
    piece = Piece(record, hashlib.sha256(data).hexdigest()) if _is_complete(record) else None
    own = _piece(data)  # columns can be anybody's
    other = own is not None and any(
        own.record.get(name) != record[name] for name in _TOLD if name in record
    )
    return Item(place, data, own or piece, has_other_record=other)


def _text_row(place: str, row: Record, record: Record) -> Item:
    """A row of a text: its line cannot be told from columns, but its text can be verified."""
    text, store = (row.get(name) for name in _TEXT)
    data = text.encode("utf-8", "replace") if isinstance(text, str) else b""
    piece = Piece({**record, "text": text}, None) if _is_complete(record) else None
    with suppress(ValueError):
        if isinstance(store, str):
            return Item(place, data, piece, manifest=base64.b64decode(store, validate=True))
    return Item(place, data, piece)


_READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    ".jsonl": _lines,
    ".tar": _members,
    ".parquet": _rows,
}

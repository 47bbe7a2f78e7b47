"""What a download may not replace in its folder: samples that it does not bring.

A file of one sample is known by the record that it carries: without a readable one it is damaged,
or none of ours, and is replaced. A file of many is replaced only by one that has all that it holds.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from db.errors import BadInput, Refused, raise_outage
from scheduler.results.pieces import Piece, read_pieces
from worker.files import digest_of
from worker.media.samples.index import IndexEntry
from worker.media.samples.parquet import load_pyarrow
from worker.media.samples.record import Record, parse_record

_OTHER_FOLDER = "choose another folder with -o, or remove what is there"


def refuse_other_samples(paths: Iterable[Path], record: bytes) -> None:
    """Raise `Refused` if a file is there already with another sample than that of `record`."""
    for path in filter(Path.is_file, paths):
        for found in (piece.record for piece in _pieces_in(path)):
            if not _agree(found, parse_record(record, "the sample")):
                raise Refused(
                    f"{path} is another sample: number {found['index']} of {found.get('model')}, "
                    f"seed {found['seed']}",
                    remedy=_OTHER_FOLDER,
                )


def refuse_lost_members(tar: Path, entries: Iterable[IndexEntry]) -> None:
    """Raise `Refused` if a tar that is there has samples which are not among the entries."""
    fetched = {entry.sha256 for entry in entries}
    if any(piece.sha256 not in fetched for piece in _pieces_in(tar)):
        raise _loss(tar)


def refuse_lost_samples(old: Path, new: Path) -> None:
    """Raise `Refused` if a file of many samples has any that the new one, in the same order, lacks.

    They are JSON Lines or tables, by the suffix of `old`.
    """
    if not old.is_file() or digest_of(old) == digest_of(new):
        return
    read = _READERS[old.suffix]
    following = read(new)
    if not all(each in following for each in read(old)):  # each `in` goes on where the last ended
        raise _loss(old)


def _pieces_in(path: Path) -> list[Piece]:
    """The samples in a file; none if it cannot be read."""
    with suppress(BadInput):
        return [*read_pieces(path)]
    return []


def _agree(one: Record, other: Record) -> bool:
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _loss(path: Path) -> Refused:
    return Refused(
        f"{path} has samples that would be lost, as this download lacks them", remedy=_OTHER_FOLDER
    )


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _rows(path: Path) -> Iterator[tuple[Any, Any]]:
    """The job and the digest of each sample of a table; of any other, one that is in no table."""
    _, parquet = load_pyarrow("choose another format with --as")
    with path.open("rb") as file:
        try:
            for batch in parquet.ParquetFile(file).iter_batches(columns=["job", "sha256"]):
                rows = (batch.column(name).to_pylist() for name in ("job", "sha256"))
                yield from zip(*rows, strict=True)
        except Exception as error:  # the library raises many kinds of errors
            raise_outage(error)
            yield path, None


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {".jsonl": _lines, ".parquet": _rows}

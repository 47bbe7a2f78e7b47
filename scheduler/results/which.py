"""Which jobs made files: by their bytes, by the records that they carry, or by their look."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from db import artifacts, lineage
from db.errors import BadInput
from db.path_errors import reading, require_file
from scheduler.results.choice import show_ranges
from scheduler.results.finder import Found, SampleFinder, model_and_seed, removed_makers
from scheduler.results.lookalikes import OnCompared, find_alike
from scheduler.results.pieces import Piece, read_file, read_pieces
from worker.files import digest_of
from worker.services import Services

Document = dict[str, Any]

BYTES, RECORD, LOOK = "bytes", "record", "look"  # what a file is known by
LOOKED_AT = 32 << 20  # bytes of a picture at most


def find_makers(
    services: Services, paths: Sequence[Path], on_compared: OnCompared = lambda _: None
) -> list[Document]:
    """Where files come from: a document for each file, of one with many samples for each job.

    `job` is None for what nobody knows, and for a file that cannot be read, whose `fault` says why.
    """
    finder = SampleFinder(services)
    found = {path: _read_samples(finder, path) for path in paths}
    found |= _by_digests(services, _unknown(found))
    found |= _by_look(services, _unknown(found), on_compared)
    documents = [each for path in paths for each in found[path] or [_document(path)]]
    _tell_removed(services, [each for each in documents if _is_unknown(each)])
    return documents


def _tell_removed(services: Services, unknown: Sequence[Document]) -> None:
    """Of what nobody knows, add which jobs may have made it that were `removed`."""
    for each in unknown:
        if made := removed_makers(services, each):  # as the file says, which may say anything
            each["removed"] = made


def _unknown(found: Mapping[Path, Sequence[Document]]) -> list[Path]:
    return [path for path, each in found.items() if all(map(_is_unknown, each))]


def _is_unknown(document: Document) -> bool:
    """Whether nobody knows a file that could be read."""
    return not document["found_by"] and "fault" not in document


def _document(path: Path, **known: Any) -> Document:
    keys = ("job", "artifact", "sample", "samples", "count", "model", "seed", "found_by", "intact")
    return {"file": str(path)} | dict.fromkeys(keys) | {"also": [], "difference": None} | known


class _Samples:
    """The samples of one job in a file, or those that no job is known to have made."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.first: tuple[Piece, Found | None] | None = None
        self.intact: set[bool | None] = set()

    def add(self, piece: Piece, found: Found | None) -> None:
        self.numbers.append(piece.record["index"])
        self.first = self.first or (piece, found)
        self.intact.add(found.intact if found else None)

    def document(self, path: Path) -> Document:
        assert self.first is not None  # noqa: S101 - made with its first sample
        piece, found = self.first
        known: Document = {"model": piece.record.get("model"), "seed": piece.record["seed"]}
        if found is not None:
            intact = False if False in self.intact else None if None in self.intact else True
            known |= {"job": found.job, "artifact": found.artifact, "also": list(found.also)}
            known |= {"found_by": BYTES if intact else RECORD, "intact": intact}
        if len(self.numbers) == 1:
            known["sample"] = self.numbers[0]
        known |= {"samples": show_ranges(self.numbers), "count": len(self.numbers)}
        return _document(path, **known)


def _read_samples(finder: SampleFinder, path: Path) -> list[Document]:
    """A document for each job whose samples are in a file, or one with its `fault`."""
    try:
        require_file(path)
        return list(_by_samples(finder, path))
    except BadInput as error:
        return [_document(path, fault=str(error))]


def _by_samples(finder: SampleFinder, path: Path) -> Iterator[Document]:
    """A document for each job whose samples are in a file."""
    groups: dict[str | None, _Samples] = {}
    for piece in read_pieces(path):
        found = finder.find(piece)
        groups.setdefault(found.job if found else None, _Samples()).add(piece, found)
    yield from (group.document(path) for group in groups.values())


def _by_digests(services: Services, paths: Sequence[Path]) -> dict[Path, list[Document]]:
    """Stored objects, such as weights, previews and whole shards, and the files of versions."""
    digests = {}
    for path in paths:
        with reading(path):
            digests[path] = digest_of(path)
    with services.database.read() as session:
        stored = artifacts.with_digests(session, sorted(set(digests.values())))
        by_digest = {each.sha256: each for each in reversed(stored)}
        versions = {
            digest: lineage.by_weights(session, digest)
            for digest in set(digests.values()) - by_digest.keys()
        }
        shards = {each.id: artifacts.shard_of(session, each) for each in by_digest.values()}
    found: dict[Path, list[Document]] = {}
    for path, digest in digests.items():
        if (artifact := by_digest.get(digest)) is not None:
            model, seed = model_and_seed(services, artifact.job_id)
            known: Document = {"job": artifact.job_id, "artifact": artifact.id, "model": model}
            if artifact.kind == "samples":
                shard = shards[artifact.id]
                known["samples"] = show_ranges(range(shard.start, shard.stop))
                known["count"] = shard.stop - shard.start
            found[path] = [_document(path, **known, seed=seed, found_by=BYTES, intact=True)]
        elif of_version := versions[digest]:
            version = of_version[0]
            known = {"job": version.version.job_id, "model": version.reference}
            found[path] = [_document(path, **known, found_by=BYTES, intact=True)]
    return found


def _by_look(
    services: Services, paths: Sequence[Path], on_compared: OnCompared
) -> dict[Path, list[Document]]:
    """Pictures that were encoded again."""
    files = [read_file(path, LOOKED_AT) for path in paths]
    found: dict[Path, list[Document]] = {}
    for path, alike in zip(paths, find_alike(services, files, on_compared), strict=True):
        if alike is None:
            continue
        number, record = alike.record["index"], alike.record
        known = {"sample": number, "samples": str(number), "count": 1, "found_by": LOOK}
        known |= {"job": alike.job, "artifact": alike.artifact, "intact": False}
        known |= {"model": record.get("model"), "seed": record.get("seed")}
        found[path] = [_document(path, **known, difference=round(alike.difference, 3))]
    return found

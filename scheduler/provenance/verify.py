"""Verifying files: each is looked up by its bytes, its record, its marks and its fingerprint."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from db import jobs, lineage
from db.errors import (
    BadInput,
    GenmillError,
    MissingPackage,
    NotFound,
    Unreachable,
    WrongKey,
    contained,
    raise_outage,
)
from scheduler.provenance.changes import (
    find_changes,
    find_damage,
    is_same_sample,
    only_spelling,
    same_content,
)
from scheduler.provenance.files import walk
from scheduler.provenance.registry import TOLD, Samples, compare, find_nearest, look_at
from scheduler.provenance.text_watermarks import TextWatermarks
from scheduler.provenance.verdicts import (
    Evidence,
    Judgement,
    KnownBy,
    Verdict,
    judge,
)
from scheduler.results.finder import SampleFinder, removed_makers
from scheduler.results.pieces import Item, is_text_of, read_items
from worker.keys.keyring import Keyring
from worker.marks import all_marks
from worker.marks.base import (
    ABSENT,
    DAMAGED,
    NOT_APPLICABLE,
    OURS,
    PRESENT,
    REVOKED,
    Mark,
    Reading,
    unreadable,
)
from worker.marks.c2pa import MARK as SIGNATURE
from worker.marks.text_watermark import MARK as TEXTS
from worker.media import all_media, find_medium, medium_of
from worker.media.base import Medium
from worker.media.samples.tags import COPYRIGHT
from worker.services import Services
from worker.services.samples import find_sample, read_sample, require_digest

Document = dict[str, Any]
OnFile = Callable[[int], object]

AT_ONCE, AT_MOST = 256, 64 << 20  # files, and bytes of files, that are held
LICENCE = "licence"  # the mark


def verify(
    services: Services | None,
    keys: Keyring,
    paths: Sequence[Path],
    on_file: OnFile = lambda _: None,
) -> Iterator[Document]:
    """A document for each file, and for each sample of a file with many.

    Without `services`, by the keys alone: then only a signature shows that a file is ours. Raises
    `BadInput` for a path that cannot be read.
    """
    verifier = _Verifier(services, keys)
    waiting: list[Evidence] = []
    held = 0
    for count, path in enumerate(walk(paths), 1):
        for item in read_items(path):
            waiting.append(verifier.examine(str(path), item))
            held += len(item.data)
            if len(waiting) >= AT_ONCE or held > AT_MOST:
                yield from verifier.conclude(waiting)
                waiting, held = [], 0
        on_file(count)
    yield from verifier.conclude(waiting)


class _Verifier:
    """Remembers what it has looked up of jobs and versions."""

    def __init__(self, services: Services | None, keys: Keyring) -> None:
        self._services, self._keys = services, keys
        self._finder = SampleFinder(services) if services else None
        self._samples = Samples(services) if services else None
        self._texts = TextWatermarks(services, keys) if services else None
        self._marks = [mark for mark in all_marks() if mark.is_written]
        self._licences: dict[str, object] = {}  # by job
        self._data: dict[str, str | None] = {}  # a version's dataset, by the digest of its weights

    def examine(self, file: str, item: Item) -> Evidence:
        """What a file itself and the record say; the registry of fingerprints is asked later."""
        evidence = Evidence(file, item, is_offline=self._services is None)
        if item.refused:
            return evidence
        if item.has_other_record:
            evidence.beside.append("the record beside it is that of another sample")
        if self._finder is not None and item.piece is not None:
            evidence.found = self._finder.find(item.piece)
        evidence.medium = _medium(item)
        if evidence.medium is not None:
            evidence.readings = [
                _guarded(mark, item, partial(mark.read, item.data, self._keys, evidence.medium))
                for mark in self._marks
            ]
            self._find_changes(evidence, evidence.medium)
        self._look_beside(evidence)
        return evidence

    def conclude(self, waiting: Sequence[Evidence]) -> Iterator[Document]:
        """The documents, once what is not known otherwise was looked up by its fingerprint."""
        if self._services is not None and self._samples is not None:
            unknown = [each for each in waiting if each.is_unknown]
            self._find_copies(self._services, self._samples, unknown)
        for evidence in waiting:
            medium, data = evidence.medium, evidence.item.data
            if self._texts is not None and medium is not None and medium.watermark == TEXTS.name:
                weights = _text(evidence.record.get("weights_sha256"))
                read = partial(self._texts.read, data, weights)
                evidence.readings.append(_guarded(TEXTS, evidence.item, read))
            yield self._document(evidence, judge(evidence))

    def _look_beside(self, evidence: Evidence) -> None:
        """Read the manifest beside a file that has no signature in it, or cannot be read itself."""
        item, readings = evidence.item, evidence.readings
        inside = [each for each in readings if each.mark == SIGNATURE.name]
        if not item.manifest or any(each.state not in _NO_SIGNATURE for each in inside):
            return
        read = partial(SIGNATURE.read_beside, item.data, item.manifest, self._keys)
        found = _guarded(SIGNATURE, item, read)
        readings[:] = [each for each in readings if each not in inside] + [found]
        if found.state == DAMAGED and found.says.get("trust") != REVOKED:
            evidence.beside.append("the C2PA manifest beside it does not fit it")
        claims = found.says.get("claims")
        if found.state == PRESENT and found.says["trust"] == OURS and isinstance(claims, dict):
            evidence.claims = claims

    def _find_changes(self, evidence: Evidence, medium: Medium) -> None:
        """Compare a file with the sample that its record names; alone, by its own checksums."""
        found, data = evidence.found, evidence.item.data
        if found is not None and found.intact:
            return
        evidence.changes = find_damage(medium, data)
        piece = evidence.item.piece
        if self._services is None or found is None or piece is None:
            return
        evidence.is_text = is_text_of(piece.record, data)  # of a row, or beside its line
        if found.intact is None and not evidence.is_text:
            return
        try:
            number = piece.record["index"]
            artifact, entry = find_sample(self._services, found.job, number)
            original = read_sample(self._services, artifact, entry)
            require_digest(f"sample {number}", original, entry.sha256)
        except Unreachable:
            raise
        except GenmillError:  # the sample is damaged or lost, as `artifact verify` tells
            return
        evidence.is_sample = is_same_sample(medium, original, data)
        if evidence.is_text:
            same = is_text_of(medium.read_record(original), data)
            evidence.found, evidence.changes = found._replace(intact=same), []
            return
        evidence.changes = find_changes(medium, original, data)
        evidence.same_content = same_content(medium, original, data)
        evidence.only_spelling = only_spelling(original, data)

    def _find_copies(
        self, services: Services, samples: Samples, unknown: Sequence[Evidence]
    ) -> None:
        looks = [look_at(each.item.data) for each in unknown]
        candidates = find_nearest(services, looks)
        for evidence, look, near in zip(unknown, looks, candidates, strict=True):
            if look is not None and near:
                evidence.nearest = compare(samples, look.medium, evidence.item.data, near)
            if evidence.item.piece is not None and not evidence.copies:
                evidence.removed = removed_makers(services, evidence.item.piece.record)

    def _document(self, evidence: Evidence, judgement: Judgement) -> Document:
        record, item = evidence.record, evidence.item
        copied, copies = evidence.copied, evidence.copies
        # a watermark tells whose a file is, and not which of our samples
        known = bool(copies) or judgement.known_by not in {None, KnownBy.WATERMARK}
        found = (copied if copies else evidence.found) if known else None
        shards = {copy.artifact for copy in copies}
        weights = _text(record.get("weights_sha256"))
        return {
            "file": evidence.file,
            "place": item.place or None,
            "sha256": None if item.refused else hashlib.sha256(item.data).hexdigest(),
            "medium": evidence.medium.name if evidence.medium else None,
            "verdict": judgement.verdict.value,
            "ours": _OURS[judgement.verdict],
            "intact": _INTACT[judgement.verdict],
            "known_by": judgement.known_by.value if judgement.known_by else None,
            "why": judgement.why,
            "job": found.job if found else None,
            "artifact": found.artifact if found and len(shards) < 2 else None,
            "sample": _number(record.get("index")),
            "also": list(evidence.found.also) if evidence.found and not copies else [],
            "model": _text(record.get("model")),
            "seed": _number(record.get("seed")),
            "dataset": (self._dataset(weights) if known and weights else None)
            or _signed_data(evidence.readings),
            "weights_sha256": weights,
            "licence": self._licence(evidence.readings, found.job if found else None),
            "beside": evidence.beside,
            "changes": [change.document() for change in evidence.changes],
            "same_content": evidence.same_content,
            "marks": [_reading(each) for each in evidence.readings],
            "nearest": [near.document() for near in evidence.nearest[:TOLD]],
        }

    def _dataset(self, weights: str) -> str | None:
        """The dataset version that a model version learnt from."""
        if self._services is None:
            return None
        if weights not in self._data:
            with self._services.database.read() as session:
                versions = lineage.by_weights(session, weights)
            self._data[weights] = next((each.dataset for each in versions if each.dataset), None)
        return self._data[weights]

    def _licence(self, readings: Sequence[Reading], job_id: str | None) -> str | None:
        """What the job was submitted with, what the signature says, or what the metadata say."""
        found = [self._job_settings(job_id)] if job_id else []
        for reading in readings:
            claims = reading.says.get("claims")
            found.append(claims.get("licence") if isinstance(claims, Mapping) else None)
        found += [_from_tags(reading) for reading in readings if reading.mark == LICENCE]
        return next(filter(None, map(_in_words, found)), None)

    def _job_settings(self, job_id: str) -> object:
        """The licence in the profile of marks that a job was submitted with."""
        if self._services is None:
            return None
        if job_id not in self._licences:
            try:
                with self._services.database.read() as session:
                    spec = jobs.get(session, job_id, kept=True).spec
            except NotFound:
                spec = {}
            self._licences[job_id] = ((spec.get("marks") or {}).get("settings") or {}).get(LICENCE)
        return self._licences[job_id]


_NO_SIGNATURE = {ABSENT, NOT_APPLICABLE}
_OURS = {
    Verdict.INTACT: True,
    Verdict.CHANGED: True,
    Verdict.UNPROVEN: None,
    Verdict.FOREIGN: False,
}
_INTACT = {
    Verdict.INTACT: True,
    Verdict.CHANGED: False,
    Verdict.UNPROVEN: None,
    Verdict.FOREIGN: None,
}


def _medium(item: Item) -> Medium | None:
    """What a file is: by its first bytes if it is a sample's, else by reading it."""
    data = item.data
    if item.piece is not None and is_text_of(item.piece.record, data):
        return find_medium("text")  # though it may be empty, or begin as something else
    try:
        return medium_of(data)
    except GenmillError:
        look = look_at(data)
        return look.medium if look else None


def _guarded(mark: Mark, item: Item, read: Callable[[], Reading]) -> Reading:
    """What a mark says, whatever the file is: a decoder's failure is told as damage."""
    try:
        reading = read()
    except Unreachable:
        raise
    except (MissingPackage, WrongKey) as error:
        return Reading(mark.name, NOT_APPLICABLE, why=error.message)
    except BaseException as error:  # native decoders raise many kinds of errors
        raise_outage(error)
        reason = " ".join(str(contained(error)).split())[:200]
        reading = unreadable(mark.name, BadInput(f"cannot be read: {reason}"))
    if reading.is_unread and not _begins_as_ours(item.data):
        return replace(reading, state=NOT_APPLICABLE)  # not a file as ours are, cut or whole
    return reading


def _begins_as_ours(data: bytes) -> bool:
    return b"genmill" in data and any(each.claims(data) for each in all_media())


def _signed_data(readings: Sequence[Reading]) -> str | None:
    """The data that the model learnt from, as a signature of ours states them."""
    for each in readings:
        claims = each.says.get("claims")
        ours = each.state == PRESENT and each.says.get("trust") == OURS
        data = claims.get("trained_on") if ours and isinstance(claims, Mapping) else None
        if isinstance(data, list):
            return ", ".join(map(str, data)) or None
    return None


def _reading(reading: Reading) -> Document:
    """A reading as plain data; numbers that JSON has not, as anybody may write, are null."""
    try:
        says = json.loads(json.dumps(dict(reading.says)), parse_constant=lambda _: None)
    except RecursionError:
        says = {}
    return {"mark": reading.mark, "state": reading.state, "says": says, "why": reading.why}


def _from_tags(reading: Reading) -> dict[str, Any]:
    """What metadata say of a licence, by the names that it has in a profile."""
    names = {"licence": "Licence", "licence_url": "LicenceUrl", "copyright": COPYRIGHT}
    return {name: reading.says.get(tag) for name, tag in names.items()}


def _in_words(licence: object) -> str | None:
    """A licence as one line."""
    if not isinstance(licence, Mapping):
        return None
    parts = (licence.get(name) for name in ("licence", "licence_url", "copyright"))
    return ", ".join(part for part in parts if isinstance(part, str) and part) or None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if type(value) is int else None

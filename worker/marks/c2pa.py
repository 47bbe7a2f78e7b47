"""C2PA Content Credentials: a signed statement of what a file is and of what it was made by.

The signature binds every byte of the file, so it comes last. There is no time stamp, and no
revocation list but that of the keyring. The library signs and reads the first file of a kind; those
like it follow its pattern. Source: C2PA Technical Specification 2.2, 2025.
"""

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from worker.keys.certificates import Private, read_certificates, read_private
from worker.marks.base import (
    ABSENT,
    DAMAGED,
    FOREIGN,
    NOT_APPLICABLE,
    OURS,
    PRESENT,
    REVOKED,
    Mark,
    Marking,
    Reading,
    Stage,
)
from worker.marks.credentials import library
from worker.marks.credentials.containers import CONTAINERS, Asset, Container
from worker.marks.credentials.fresh_signatures import FreshSignatures
from worker.marks.credentials.template import PATTERN_INDEX, Template
from worker.marks.credentials.unsigned_bytes import in_own_form, is_as_written
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import AI_GENERATED, SharedRecord
from worker.specs import Params, Reference

if TYPE_CHECKING:
    from worker.keys.keyring import HeldKey, Keyring
    from worker.media.base import Medium

CLAIMS = "genmill.origin"  # the label of the assertion that says what a sample was made by
WHOLE = "genmill.line"  # and of that with the digest of the line that a signed text is in
CLAIMED = ("model", "weights_sha256", "family", "dataset", "seed", "label", "genmill")
THREADS = min(8, os.cpu_count() or 1)
UNSIGNED = "genmill.manifest.mismatch"  # the code of a change that no signature tells
MAX_PATTERNS = 1000  # one for each model, seed and label
UNTRUSTED = "signingCredential.untrusted"
# codes that a signature of a trusted key has, whatever became of the file that it signs
SIGNED = {"claimSignature.validated", "signingCredential.trusted"}
_NO_PLACE = "C2PA has no place for a signature inside {} files"
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
_HEADS = {
    **{b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"},
    **{b"ID3": "audio/mpeg", b"\xff\xfb": "audio/mpeg", b"fLaC": "audio/flac"},
}


class C2paSettings(Params):
    """What a signature states beside the record of its sample."""

    trained_on: tuple[Reference, ...] = Field(
        (), description="the data that the model learnt from; by default those on record"
    )


class C2pa(Mark):
    """The signature. Its key is the tenant's signing key that the spec pins."""

    name = "c2pa"
    stage = Stage.SIGNATURE
    schema = C2paSettings
    purposes = ("signing",)

    def misfit_of_job(self, marking: Marking) -> str:
        """See `Mark.misfit_of_job`."""
        suffix = marking.medium.suffix
        return "" if suffix in CONTAINERS else _NO_PLACE.format(suffix)

    def apply_bytes(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> list[bytes]:
        """Sign every file. What the library has to sign is signed in threads."""
        signing = _signing(marking)
        signed = [signing.by_pattern(*each) for each in zip(samples, data, strict=True)]
        left = [number for number, each in enumerate(signed) if each is None]
        slow = _pool().map(lambda at: signing.by_library(samples[at], data[at]), left)
        found = dict(zip(left, slow, strict=True))
        return [each or found[number] for number, each in enumerate(signed)]

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """Whether the file is as it was signed, by which key, and whether that key is ours."""
        container = CONTAINERS.get(medium.suffix)
        if container is None:
            return Reading(self.name, NOT_APPLICABLE, why=_NO_PLACE.format(medium.suffix))
        if _media_type(data) is None and not medium.claims(data):
            return Reading(self.name, ABSENT)
        return _read_by_pattern(data, keys, container) or _read(data, keys, container)

    def read_beside(self, data: bytes, store: bytes, keys: "Keyring") -> Reading:
        """As `read`, by a manifest store that lies beside a file, such as `NAME.c2pa`."""
        asset = Asset(data, _media_type(data) or "text/plain", store)
        return _say(asset, keys, as_written=is_as_written(store, is_external=True))

    def read_back(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> Iterator[Reading | None]:
        """A file is not read if it is, byte for byte, what its pattern and its content make.

        See `FreshSignatures`.
        """
        signing = _signing(marking)
        for sample, each in zip(samples, data, strict=True):
            fresh = signing.is_fresh(sample, each)
            yield None if fresh else self.read(each, marking.keys, marking.medium)

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """See `Mark.expected`."""
        signing = _signing(marking)
        claimed = {**signing.claimed(sample.shared), "index": sample.index}
        return {"trust": OURS, "key": signing.key.id, "claims": claimed}

    def signed_part(self, data: bytes, medium: "Medium") -> bytes:
        """See `Mark.signed_part`."""
        return CONTAINERS[medium.suffix].strip(data)


MARK = C2pa()


def claims(
    shared: SharedRecord, index: int, stated: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """What a file's signature says that it was made by: model, data, seed and number, licence.

    All other settings are in the record inside the file, which the signature binds too.
    """
    found: dict[str, JsonValue] = {
        name: value for name in CLAIMED if (value := shared.record.get(name)) is not None
    }
    return {**found, "index": index, **stated}


def _stated(marking: Marking) -> dict[str, JsonValue]:
    """What all samples of a job state: the data, and the licence if they carry that mark."""
    data = marking.settings(MARK.name, C2paSettings).trained_on
    licence: dict[str, JsonValue] = dict(marking.profile.settings.get("licence", {}))
    told: JsonValue = {name: value for name, value in licence.items() if value}
    found = {"trained_on": list[JsonValue](data), "licence": told}
    return {name: value for name, value in found.items() if value}


def _signing(marking: Marking) -> "_Signing":
    return marking.once(MARK.name, lambda: _Signing(marking))


def _ring(marking: Marking) -> "Keyring":
    """The keys that the job was enqueued with, whatever is current now."""
    keys, pinned = marking.keys, marking.profile.keys
    return keys if keys.pinned == pinned else keys.use(pinned)


@dataclass(frozen=True)
class _Pattern:
    """How files with equal claims but for their numbers are signed, and what a reading says."""

    template: Template
    private: Private
    said: Reading  # by the library, of a file of this pattern
    manifest: str  # the id in the name of that file's manifest
    anchors: str  # that it was read with

    def reading(self, index: int, manifest: str) -> Reading:
        """What the library says of another file of this pattern."""
        says = dict(self.said.says)
        of_file = says["claims"]
        assert isinstance(of_file, dict)  # noqa: S101 - for mypy: it was compared when learnt
        says["claims"] = {**of_file, "index": index}
        says["manifest"] = str(says["manifest"]).replace(self.manifest, manifest)
        return Reading(MARK.name, self.said.state, says)


class _Signing:
    """Signs the files of a job, by patterns where it can, and reads them back."""

    def __init__(self, marking: Marking) -> None:
        self._ring, self._container = _ring(marking), CONTAINERS[marking.medium.suffix]
        self._stated = _stated(marking)
        self.key = self._ring.current("signing")
        # asked for each sample, most of which share a few records
        self.claimed = lru_cache(maxsize=256)(lambda shared: claims(shared, 0, self._stated))
        self._kind = lru_cache(maxsize=256)(self._kind_of)

    def by_pattern(self, sample: SampleRecord, content: bytes) -> bytes | None:
        """The signed file; None if it is for the library to sign it."""
        kind = self._kind(sample.shared)
        if kind not in _patterns:
            _remember(kind, self._learn(sample, content))
        if (pattern := _patterns.get(kind)) is None:
            return None
        return pattern.template.sign(content, sample.index, pattern.private)

    def by_library(self, sample: SampleRecord, content: bytes) -> bytes:
        """The signed file."""
        said = claims(sample.shared, sample.index, self._stated)
        assertions: dict[str, JsonValue] = {CLAIMS: said}
        container, version = self._container, str(said.get("genmill", ""))
        key = (self.key.id, self._ring.signer, container.media_type)
        if not container.is_external:
            signed = library.sign(*key, assertions, content, version=version)
            return _with_own_form(signed, container)
        assertions[WHOLE] = {"sha256": hashlib.sha256(content).hexdigest()}
        [bound] = container.bound(content, b"")
        store = library.sign(*key, assertions, bytes(bound), version=version, external=True)
        return container.insert(content, in_own_form(store, is_external=True))

    def is_fresh(self, sample: SampleRecord, data: bytes) -> bool:
        """Whether a file holds what was just signed for it, and needs no further check."""
        pattern = _patterns.get(self._kind(sample.shared))
        return pattern is not None and pattern.template.fresh.has(sample.index, data)

    def _kind_of(self, shared: SharedRecord) -> tuple[Any, ...]:
        """What files have in common that follow one pattern."""
        claimed = (*(shared.record.get(name) for name in CLAIMED), json.dumps(self._stated))
        return self.key.id, self._container.media_type, self._ring.anchors, claimed

    def _learn(self, sample: SampleRecord, content: bytes) -> _Pattern | None:
        """A pattern, once the library's own reader has accepted a file of it; else None."""
        signed = self.by_library(replace(sample, index=PATTERN_INDEX), content)
        certificate = read_certificates(self.key.public or "")[0]
        template = Template.learn(self._container, certificate, content, signed)
        private = read_private(self._ring.signer().private)
        made = template and template.sign(content, sample.index, private)
        where = made and self._container.find(made)
        if not template or not made or not where or not (found := template.check(made, where)):
            return None
        said = _read(made, self._ring, self._container)
        as_claimed = said.says.get("claims") == claims(sample.shared, sample.index, self._stated)
        if said.state != PRESENT or said.says["trust"] != OURS or not as_claimed:
            return None
        template = replace(template, fresh=FreshSignatures())  # none of it was on the trial
        return _Pattern(template, private, said, found.manifest, self._ring.anchors)


def _read_by_pattern(data: bytes, keys: "Keyring", container: Container) -> Reading | None:
    """What a file says that follows a pattern of this process exactly; None for any other."""
    found = container.find(data)
    if found is None:
        return None
    size = len(found.store)
    for start, stop in tuple(_telling.get(size, ())):
        pattern = _by_text.get((size, start, found.store[start:stop]))
        if pattern is None or pattern.anchors != keys.anchors:
            continue
        if checked := pattern.template.check(data, found):
            key = next((each for each in keys.keys if each.id == pattern.said.says["key"]), None)
            if key is None:  # of an older bundle
                return None
            said = pattern.reading(checked.index, checked.manifest)
            return said if key.revoked_at is None else _as_revoked(said, key)
    return None


def _read(data: bytes, keys: "Keyring", container: Container) -> Reading:
    """What the library says of a file."""
    try:
        asset = container.asset(data)
    except ValueError as error:
        return Reading(MARK.name, DAMAGED, why=f"it cannot be read: {error}")
    if asset is None:
        return Reading(MARK.name, ABSENT)
    asset = asset._replace(media_type=_media_type(data) or asset.media_type)
    whole = hashlib.sha256(container.strip(data)).hexdigest() if container.is_external else None
    return _say(asset, keys, as_written=_is_as_written(data, container), whole=whole)


def _with_own_form(signed: bytes, container: Container) -> bytes:
    """A file that the library signed, with the form of its signature that Genmill makes."""
    found = container.find(signed)
    if found is None:
        return signed
    chunk = container.chunk(in_own_form(found.store, is_external=False))
    return signed[: found.chunk.start] + chunk + signed[found.chunk.stop :]


def _is_as_written(data: bytes, container: Container) -> bool:
    """Whether what the signature does not cover is as it was when the file was signed."""
    found = container.find(data)
    if found is None:
        return False
    chunk = data[found.chunk.start : found.chunk.stop]
    return container.chunk(found.store) == chunk and is_as_written(
        found.store, is_external=container.is_external
    )


def _say(asset: Asset, keys: "Keyring", *, as_written: bool, whole: str | None = None) -> Reading:
    """What the library says of an asset, and of one of Genmill whether it is `as_written`.

    `whole` is the digest of the line that it was in.
    """
    try:
        found = library.read(asset.data, asset.media_type, keys.anchors, asset.store)
    except library.Unreadable as error:
        return Reading(MARK.name, DAMAGED, why=f"it cannot be read: {error}")
    if found is None:
        return Reading(MARK.name, ABSENT)
    manifest = found.get("manifests", {}).get(found.get("active_manifest"), {})
    signature = manifest.get("signature_info") or {}
    failures = [each for each in library.failures(found) if each.get("code") != UNTRUSTED]
    key = keys.signing_key(str(signature.get("cert_serial_number", "")))
    trusted = key is not None and _passed(found) >= SIGNED  # also if the file was changed since
    if trusted and key and key.anchor != keys.anchors:
        trusted = _is_by(key, asset)
    assertions = {each["label"]: each.get("data") for each in manifest.get("assertions", ())}
    if whole is not None and assertions.get(WHOLE) != {"sha256": whole}:
        failures.append(
            {"code": f"{WHOLE}.mismatch", "explanation": "not the line around its text"}
        )
    if CLAIMS in assertions and not failures and not as_written:
        failures.append({"code": UNSIGNED, "explanation": "bytes that no signature covers"})
    broken = list(dict.fromkeys(str(each.get("code")) for each in failures))
    says: dict[str, JsonValue] = {
        "trust": OURS if trusted else FOREIGN,
        "key": key.id if key and trusted else None,
        "signer": signature.get("issuer"),
        "common_name": signature.get("common_name"),
        "algorithm": signature.get("alg"),
        "generated": _is_generated(assertions),
        "claims": assertions.get(CLAIMS),
        "manifest": found.get("active_manifest"),
        "broken": list[JsonValue](broken),
    }
    if broken or found.get("validation_state") == "Invalid":
        reasons = (f"{each.get('code')}: {each.get('explanation', '')}" for each in failures)
        said = Reading(MARK.name, DAMAGED, says, "; ".join(dict.fromkeys(reasons)) or "invalid")
        return _as_revoked(said, key) if trusted and key and key.revoked_at else said
    why = f"it is signed by {signature.get('issuer')!r}, not by a key of this installation"
    said = Reading(MARK.name, PRESENT, says, "" if trusted else why)
    return _as_revoked(said, key) if trusted and key and key.revoked_at else said


def _is_by(key: "HeldKey", asset: Asset) -> bool:
    """Whether the certificate is of the authority that issued the key's, as its number is.

    Numbers are public, and any other authority of ours, once it was stolen, can use them again.
    """
    found = library.read(asset.data, asset.media_type, key.anchor, asset.store)
    return found is not None and _passed(found) >= SIGNED


def _passed(found: Mapping[str, Any]) -> set[str]:
    """The codes of what was found right with the file's own manifest."""
    results = found.get("validation_results") or {}
    active = results.get("activeManifest") or {}
    return {str(each.get("code")) for each in active.get("success", ())}


def _media_type(data: bytes) -> str | None:
    """That of a file by its first bytes: a copy may be in another format than samples."""
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    return next((form for head, form in _HEADS.items() if data.startswith(head)), None)


def _as_revoked(said: Reading, key: "HeldKey") -> Reading:
    says = {**said.says, "trust": REVOKED}
    return replace(said, state=DAMAGED, says=says, why=f"its {key.told_revoked}")


def _is_generated(assertions: Mapping[str, Any]) -> bool:
    """Whether the file says that it was created by a trained model."""
    found = assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions") or {}
    return any(
        each.get("action") == "c2pa.created" and each.get("digitalSourceType") == AI_GENERATED
        for each in found.get("actions", ())
    )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="c2pa")


_patterns: dict[tuple[Any, ...], _Pattern | None] = {}
# a pattern by its size, and by a text of its own and where that starts; and where those texts are
_by_text: dict[tuple[int, int, bytes], _Pattern] = {}
_telling: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
_remembering = threading.Lock()


def forget_patterns() -> None:
    """Let the library sign and read the next file of each kind."""
    for each in (_patterns, _by_text, _telling):
        each.clear()


def _remember(kind: tuple[Any, ...], pattern: _Pattern | None) -> None:
    with _remembering:
        if len(_patterns) >= MAX_PATTERNS:
            forget_patterns()
        _patterns[kind] = pattern
        if pattern is not None:
            own, store = pattern.template.own, pattern.template.store
            _telling[len(store)].add((own.start, own.stop))
            _by_text[len(store), own.start, store[own]] = pattern


def _forget() -> None:
    """In a forked child: the threads of the parent are not there, nor who may hold the lock."""
    global _remembering  # noqa: PLW0603 - as above
    _remembering = threading.Lock()
    _pool.cache_clear()


os.register_at_fork(after_in_child=_forget)

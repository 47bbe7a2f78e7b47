"""A manifest store that the library made, as the pattern of those of other files.

Between files of one kind with one key, these differ: the name of the manifest and the id of the
file, the number of the sample, the digest of the file and where its chunk begins, the digests of
the assertions that state these, and the signature. The manifest of a text names no place in it; it
has the digest of the line that holds both instead. All have a fixed length, so they are put into
their places. A signed file is checked in the same way: every digest is computed again, put into its
place, and the whole compared with what is in the file; then the signature is checked.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from cryptography.x509 import Certificate

from worker.keys.certificates import Private
from worker.marks.credentials.boxes import (
    HEADER,
    boxes,
    byte_string,
    read_byte_string,
    shortest,
    uint,
)
from worker.marks.credentials.containers import Bytes, Container, Signed
from worker.marks.credentials.fresh_signatures import FreshSignatures
from worker.marks.credentials.raw_signatures import Scheme, scheme_of

PATTERN_INDEX = 0x7FFF_FFFF  # the number of the sample that the library signs
INDEX_BYTES, DIGEST_BYTES = 4, 32
_PAD = b"\x63pad"  # of COSE: a text of three letters, and zeros
_UUID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME = re.compile(rb"urn:(?:c2pa|uuid):(" + _UUID + rb")")
_FILE_ID = re.compile(rb"instanceID\x78.xmp[.:]iid:(" + _UUID + rb")", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """What a signed file says of itself, once it has been checked."""

    index: int
    manifest: str  # the id in the name of its manifest


@dataclass(frozen=True)
class _Assertion:
    content: slice  # what its digest is of
    digest: slice  # where the claim has it


class _Around(NamedTuple):
    """What a store says of the file that it is in."""

    start: int  # of its chunk
    digest: bytes
    whole: bytes  # the digest, in hexadecimal, of the line around an external one


@dataclass(frozen=True)
class Template:
    """The pattern; slices are places in `store`."""

    container: Container
    scheme: Scheme
    store: bytes
    names: tuple[slice, ...]
    file_id: slice
    index: slice
    start: slice | None  # of the chunk, as CBOR; None if the store is an external one
    whole: slice | None  # the digest of the line around an external one
    digest: slice
    assertions: tuple[_Assertion, ...]
    claim: slice
    signature: slice
    before_claim: bytes  # of what is signed: RFC 9052, section 4.4
    own: slice  # a text that no other pattern has: what is stated, with a salt
    # for the ids of files; drawing one for each would let go of the interpreter's lock each time
    salt: bytes = field(default_factory=partial(os.urandom, 16))
    fresh: FreshSignatures = field(default_factory=FreshSignatures)

    @staticmethod
    def learn(
        container: Container, certificate: Certificate, content: bytes, signed: bytes
    ) -> "Template | None":
        """The pattern of what the library made of `content`; None if it is not as expected.

        The sample must have the number `PATTERN_INDEX`.
        """
        try:
            return _Learner(container, certificate, content, signed).template()
        except (ValueError, LookupError):
            return None

    def sign(self, content: bytes, index: int, private: Private) -> bytes | None:
        """A signed file; None if a number does not fit into its place."""
        before, after = self.container.split(content, len(self.store))
        around = self._around(before, after)
        name = _uuid(self.salt + around.digest + around.whole)
        store = self._filled(index, around, name=name, file_id=name)
        if store is None:
            return None
        store[self.signature] = self.scheme.sign(private, self._signed(store))
        signed = b"".join((before, self.container.chunk(store), after))
        self.fresh.add(index, signed)
        return signed

    def check(self, data: bytes, found: Signed) -> Found | None:
        """What a file says of itself, if it is of this pattern and as it was signed; else None."""
        chunk, store = found
        if len(store) != len(self.store):
            return None
        index, name = int.from_bytes(store[self.index]), store[self.names[0]]
        around = self._found_around(data, chunk)
        filled = around and self._filled(index, around, name=name, file_id=store[self.file_id])
        if not filled:
            return None
        filled[self.signature] = signature = store[self.signature]
        if self.container.chunk(filled) != data[chunk.start : chunk.stop]:
            return None
        if not self.scheme.is_valid(signature, self._signed(filled)):
            return None
        return Found(index, name.decode("ascii", "replace"))

    def _around(self, before: Bytes, after: Bytes) -> _Around:
        """Raises `ValueError` for what is no such file."""
        digest = _sha256(*self.container.bound(before, after))
        whole = b"" if self.whole is None else _sha256(before, after).hex().encode()
        return _Around(len(before), digest, whole)

    def _found_around(self, data: bytes, chunk: range) -> _Around | None:
        view = memoryview(data)
        try:
            return self._around(view[: chunk.start], view[chunk.stop :])
        except ValueError:
            return None

    def _filled(
        self, index: int, around: _Around, *, name: bytes, file_id: bytes
    ) -> bytearray | None:
        """The store of a file but for its signature; None if a number does not fit."""
        if index >= 1 << 8 * INDEX_BYTES:
            return None
        store = bytearray(self.store)
        for each in self.names:
            store[each] = name
        store[self.file_id] = file_id
        store[self.index] = index.to_bytes(INDEX_BYTES)
        if self.start is not None:
            place = uint(around.start, self.start.stop - self.start.start)
            if place is None:
                return None
            store[self.start] = place
        if self.whole is not None:
            store[self.whole] = around.whole
        store[self.digest] = around.digest
        for assertion in self.assertions:
            store[assertion.digest] = _sha256(store[assertion.content])
        return store

    def _signed(self, store: bytearray) -> bytes:
        return self.before_claim + store[self.claim]


class _Learner:
    """Finds the places in what the library made. Raises `ValueError` where one is not there."""

    def __init__(
        self, container: Container, certificate: Certificate, content: bytes, signed: bytes
    ) -> None:
        self.container, self.scheme = container, scheme_of(certificate)
        found = container.find(signed)
        if found is None:
            raise ValueError("no chunk")
        self.store = found.store
        before, after = container.split(content, len(self.store))
        if container.insert(content, self.store) != signed:
            raise ValueError("another layout")
        self.start, self.length = found.chunk.start, len(found.chunk)
        self.whole = _sha256(before, after).hex().encode()
        self.digest = _sha256(*container.bound(before, after))
        self.boxes = {each.label: each for each in boxes(self.store)}

    def template(self) -> Template:
        claim = next(self.boxes[label] for label in self.boxes if label.startswith("c2pa.claim"))
        signature, before_claim = self._signature(claim.body)
        index = self._after(b"\x65index\x1a", PATTERN_INDEX.to_bytes(INDEX_BYTES))
        is_external = self.container.is_external
        start = None if is_external else self._after(b"\x65start", shortest(self.start))
        whole = self._only(self.whole) if is_external else None
        digest = self._only(self.digest)
        stated = [each for each in (index, start, whole, digest) if each]
        matches = list(_NAME.finditer(self.store))
        if len({each[1] for each in matches}) != 1:
            raise ValueError("several manifests")
        file_id = _FILE_ID.search(self.store)
        if file_id is None:
            raise ValueError("no id of the file")
        assertions = tuple(self._assertions(claim.body, stated))
        names = tuple(slice(*each.span(1)) for each in matches)
        places = (
            *(*names, slice(*file_id.span(1)), *stated, signature),
            *(each.digest for each in assertions),
        )
        return self._unpadded(
            container=self.container,
            scheme=self.scheme,
            store=self.store,
            names=names,
            file_id=slice(*file_id.span(1)),
            index=index,
            start=start,
            whole=whole,
            digest=digest,
            assertions=assertions,
            claim=claim.body,
            signature=signature,
            before_claim=before_claim,
            own=slice(index.stop, min(at.start for at in places if at.start >= index.stop)),
        )

    def _unpadded(self, **found: Any) -> Template:
        """The pattern without the zeros that the library leaves room for time stamps with: 1 kB.

        They are in the signature's box, in front of the signature, and are not signed.
        """
        template, cose = Template(**found), self.boxes["c2pa.signature"].body
        at = template.store.find(_PAD, cose.start, template.signature.start) + len(_PAD)
        if at < len(_PAD):
            return template
        zeros = byte_string(read_byte_string(template.store, at))
        cut = len(zeros) - 1
        store = bytearray(template.store)
        if not self.container.is_external:
            length = self._after(b"\x66length", shortest(self.length))
            shorter = uint(self.length - cut, length.stop - length.start)
            if shorter is None:
                return template
            store[length] = shorter
        around = [box.content for box in self.boxes.values() if _contains(box.content, cose)]
        for start in (cose.start, *(content.start for content in around)):
            size = slice(start - HEADER, start - HEADER + 4)
            store[size] = (int.from_bytes(store[size]) - cut).to_bytes(4)
        store[at : at + len(zeros)] = byte_string(b"")
        signature = slice(template.signature.start - cut, template.signature.stop - cut)
        return replace(template, store=bytes(store), signature=signature)

    def _signature(self, claim: slice) -> tuple[slice, bytes]:
        """Where the signature is, and what is signed before the claim; it must be valid."""
        body = self.boxes["c2pa.signature"].body
        cose = self.store[body]
        if not cose.startswith(b"\xd2\x84"):  # COSE_Sign1
            raise ValueError("no signature")
        protected = read_byte_string(cose, 2)
        size = _signature_size(cose)
        place = slice(body.stop - size, body.stop)
        text = self.store[claim]
        head = byte_string(text)[: -len(text)]
        before = b"".join((b"\x84\x6aSignature1", byte_string(protected), b"\x40", head))
        if not self.scheme.is_valid(self.store[place], before + text):
            raise ValueError("a signature of another form")
        return place, before

    def _assertions(self, claim: slice, places: Sequence[slice]) -> Iterator[_Assertion]:
        """The assertions in which these places are."""
        for label, box in self.boxes.items():
            inner = self.boxes["c2pa.assertions"].content
            if label == "c2pa.assertions" or not _contains(inner, box.content):
                continue
            if any(_contains(box.content, place) for place in places):
                digest = self._only(_sha256(self.store[box.content]))
                if not _contains(claim, digest):
                    raise ValueError("a digest outside the claim")
                yield _Assertion(box.content, digest)

    def _only(self, text: bytes) -> slice:
        """Where a text is that is there once."""
        if self.store.count(text) != 1:
            raise ValueError("not there once")
        at = self.store.index(text)
        return slice(at, at + len(text))

    def _after(self, before: bytes, text: bytes) -> slice:
        found = self._only(before + text)
        return slice(found.start + len(before), found.stop)


def _uuid(seed: bytes) -> bytes:
    """A pseudorandom UUID (RFC 9562, version 4) as text. Equal for equal seeds."""
    drawn = _sha256(seed)[:16].hex()
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-a{drawn[17:20]}-{drawn[20:]}".encode()


def _signature_size(cose: bytes) -> int:
    """The length of the byte string that ends a COSE_Sign1."""
    for size in (64, 96, 132, 256, 384, 512):
        if cose[:-size].endswith(byte_string(bytes(size))[:-size]):
            return size
    raise ValueError("a signature of another length")


def _contains(outer: slice, inner: slice) -> bool:
    within: bool = outer.start <= inner.start and inner.stop <= outer.stop
    return within


def _sha256(first: Bytes | bytearray, second: Bytes = b"") -> bytes:
    found = hashlib.sha256(first)
    if second:
        found.update(second)
    return found.digest()

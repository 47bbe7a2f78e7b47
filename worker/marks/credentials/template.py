"""A manifest store that the library made, as the pattern of those of other files.

Between files of one kind with one key, these differ: the name of the manifest and the id of the
file, the number of the sample, the digest of the file and where its chunk begins, the digests of
the assertions that state these, and the signature. The manifest of a text names no place in it; it
has the digest of the line that holds both instead. All have a fixed length, so they are put into
their places. A signed file is checked in the same way: that nothing else differs from the pattern,
and then every digest and the signature, as a C2PA reader does.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.x509 import Certificate

from worker.keys.certificates import Private
from worker.marks.credentials.boxes import (
    boxes,
    byte_string,
    read_byte_string,
    shortest,
    uint,
)
from worker.marks.credentials.containers import Bytes, Container, Signed
from worker.marks.credentials.raw_signatures import Scheme, scheme_of

PATTERN_INDEX = 0x7FFF_FFFF  # the number of the sample that the library signs
INDEX_BYTES, DIGEST_BYTES = 4, 32
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
    whole: slice | None  # the digest, in hexadecimal, of the line around an external one
    digest: slice
    assertions: tuple[_Assertion, ...]
    claim: slice
    signature: slice
    before_claim: bytes  # of what is signed: RFC 9052, section 4.4
    # all the rest, and first of it a text that no other pattern has: what is stated, with a salt
    fixed: tuple[tuple[slice, bytes], ...]

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
        stated = [*self._stated(before, after)]
        if index >= 1 << 8 * INDEX_BYTES or any(value is None for _, value in stated):
            return None
        store = bytearray(self.store)
        name, store[self.file_id] = _fresh_uuid(), _fresh_uuid()
        for each in self.names:
            store[each] = name
        store[self.index] = index.to_bytes(INDEX_BYTES)
        for place, value in stated:
            store[place] = value or b""
        for assertion in self.assertions:
            store[assertion.digest] = _sha256(store[assertion.content])
        store[self.signature] = self.scheme.sign(private, self._signed(store))
        return b"".join((before, self.container.chunk(bytes(store)), after))

    def check(self, data: bytes, found: Signed, private: Private | None = None) -> Found | None:
        """What a file says of itself, if it is of this pattern and as it was signed; else None.

        The private key, if it is at hand, makes that quicker.
        """
        (chunk, store), view = found, memoryview(data)
        if not self._fits(store) or view[chunk.start : chunk.stop] != self.container.chunk(store):
            return None
        try:
            stated = [*self._stated(view[: chunk.start], view[chunk.stop :])]
        except ValueError:
            return None
        stated += [(each.digest, _sha256(store[each.content])) for each in self.assertions]
        if not all(store[place] == value for place, value in stated):
            return None
        if not self.scheme.is_valid(store[self.signature], self._signed(store), private):
            return None
        name = store[self.names[0]].decode("ascii", "replace")
        return Found(int.from_bytes(store[self.index]), name)

    def _fits(self, store: bytes) -> bool:
        """Whether a store is of this pattern in all that is fixed."""
        return (
            len(store) == len(self.store)
            and all(store[where] == text for where, text in self.fixed)
            and len({store[each] for each in self.names}) == 1
        )

    def _stated(self, before: Bytes, after: Bytes) -> Iterator[tuple[slice, bytes | None]]:
        """What a store says of the file that it is in, and where; None: there is no room for it."""
        if self.start is not None:
            yield self.start, uint(len(before), self.start.stop - self.start.start)
        if self.whole is not None:
            yield self.whole, _sha256(before, after).hex().encode()
        yield self.digest, _sha256(*self.container.bound(before, after))

    def _signed(self, store: bytes | bytearray) -> bytes:
        return self.before_claim + bytes(store[self.claim])


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
        self.start, self.whole = found.chunk.start, _sha256(before, after).hex().encode()
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
        return Template(
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
            fixed=tuple(self._fixed(places, index)),
        )

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

    def _fixed(self, places: tuple[slice, ...], index: slice) -> Iterator[tuple[slice, bytes]]:
        """What is between the places; first what follows the index."""
        edges = sorted((place.start, place.stop) for place in places)
        between = zip(
            [0, *(stop for _, stop in edges)],
            [*(s for s, _ in edges), len(self.store)],
            strict=True,
        )
        found = (slice(*each) for each in between if each[0] < each[1])
        for each in sorted(found, key=lambda each: index.stop != each.start):
            yield each, self.store[each]


def _fresh_uuid() -> bytes:
    """A random UUID (RFC 9562, version 4) as text."""
    digits = os.urandom(16).hex()
    parts = (digits[:8], digits[8:12], f"4{digits[13:16]}", f"a{digits[17:20]}", digits[20:])
    return "-".join(parts).encode()


def _signature_size(cose: bytes) -> int:
    """The length of the byte string that ends a COSE_Sign1."""
    for size in (64, 96, 132, 256, 384, 512):
        if cose[:-size].endswith(byte_string(bytes(size))[:-size]):
            return size
    raise ValueError("a signature of another length")


def _contains(outer: slice, inner: slice) -> bool:
    within: bool = outer.start <= inner.start and inner.stop <= outer.stop
    return within


def _sha256(*parts: Bytes | bytearray) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.digest()

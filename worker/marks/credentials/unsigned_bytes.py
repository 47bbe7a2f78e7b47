"""What no signature covers of a manifest store: it must be as it is written, byte for byte.

C2PA hashes the content of assertions and signs the claim. The boxes around them, what describes
these, the header of the signature, and which of two forms that has, are bound by nothing, and
readers overlook changes there.
"""

import hashlib
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric import ec

from worker.marks.credentials.boxes import HEADER, Box, boxes, byte_string, read_byte_string
from worker.marks.credentials.raw_signatures import with_low_s

_UUID = b"\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"  # after four letters: ISO 19566-5, B
_REQUESTABLE = 3  # toggles of a description: it has a label, by which the box may be asked for
_COSE_SIGN1 = b"\xd2\x84"
_NO_PAYLOAD = b"\xf6"  # the claim is beside the signature
_PADS = (b"\x63pad", b"\x64pad2")  # room for time stamps, which ours lack
_NO_ROOM = b"\xa1\x63pad\x40"
# by the algorithm (RFC 9053), which is the first in the protected header
_CURVES: tuple[tuple[bytes, ec.EllipticCurve], ...] = (
    (b"\x01\x26", ec.SECP256R1()),
    (b"\x01\x38\x22", ec.SECP384R1()),
    (b"\x01\x38\x23", ec.SECP521R1()),
)


def is_as_written(store: bytes, *, is_external: bool) -> bool:
    """Whether the unsigned bytes of a valid store are those of one that was just signed."""
    try:
        outer, manifest, assertions, *stated, claim, signature = boxes(store)
        return (
            _are_in_turn([outer], slice(0, len(store)))
            and _are_in_turn([manifest], _after_description(outer))
            and _are_in_turn([assertions, claim, signature], _after_description(manifest))
            and _are_in_turn(stated, _after_description(assertions))
            and _is_described(store, outer, b"c2pa", "c2pa")
            and _is_described(store, manifest, b"c2ma", manifest.label)  # as signed texts name it
            and _is_described(store, assertions, b"c2as", "c2pa.assertions")
            and _is_described(store, claim, b"c2cl", "c2pa.claim.v2", is_cbor=True)
            and _is_described(store, signature, b"c2cs", "c2pa.signature", is_cbor=True)
            and all(_is_bound(store, each, claim) for each in stated)
            and _is_signature(store[signature.body])
            and in_own_form(store, is_external=is_external) == store
        )
    except (ValueError, LookupError, RecursionError):
        return False


def in_own_form(store: bytes, *, is_external: bool) -> bytes:
    """A store that the library signed, as Genmill writes it.

    With the form of its signature that Genmill makes, and an external one without room for time
    stamps: of no other does the signature tell the size.
    """
    try:
        own = _with_own_signature(store)
        return _without_room(own) if is_external else own
    except (ValueError, LookupError, RecursionError):
        return store


def _with_own_signature(store: bytes) -> bytes:
    *_, box = boxes(store)
    cose = store[box.body]
    protected = read_byte_string(cose, len(_COSE_SIGN1))
    for algorithm, curve in _CURVES:
        if protected.startswith(algorithm, 1):
            size = 2 * -(-curve.key_size // 8)
            signature = with_low_s(cose[-size:], curve)
            return store[: box.body.stop - size] + signature + store[box.body.stop :]
    return store


def _without_room(store: bytes) -> bytes:
    outer, manifest, *_, signature = boxes(store)
    cose = store[signature.body]
    start = len(_COSE_SIGN1) + len(byte_string(read_byte_string(cose, len(_COSE_SIGN1))))
    end = _header_end(cose, start)
    cut = end - start - len(_NO_ROOM)
    made = bytearray(store)
    for box in (outer.content, manifest.content, signature.content, signature.body):
        size = slice(box.start - HEADER, box.start - HEADER + 4)
        made[size] = (int.from_bytes(made[size]) - cut).to_bytes(4)
    made[signature.body.start + start : signature.body.start + end] = _NO_ROOM
    return bytes(made)


def _header_end(cose: bytes, at: int) -> int:
    """Where the part of a signature's header ends that is not signed. Raises `ValueError`."""
    pads, at = cose[at] - 0xA0, at + 1  # of a map
    for name in _PADS[: max(pads, 0)]:
        at += len(name) + len(byte_string(read_byte_string(cose, at + len(name))))
    if cose[at : at + 1] != _NO_PAYLOAD:
        raise ValueError("another header")
    return at


def _whole(box: Box) -> slice:
    return slice(box.content.start - HEADER, box.content.stop)


def _after_description(box: Box) -> slice:
    return slice(box.body.start - HEADER, box.content.stop)


def _is_bound(store: bytes, assertion: Box, claim: Box) -> bool:
    """Whether the claim has the digest of an assertion as it is.

    The library hashes what it has parsed of a description: it drops bits that it does not know.
    """
    return hashlib.sha256(store[assertion.content]).digest() in store[claim.body]


def _are_in_turn(inner: list[Box], within: slice) -> bool:
    """Whether these boxes, and nothing else, fill a place."""
    ends = [slice(within.start, within.start), *map(_whole, inner), slice(within.stop, within.stop)]
    return all(one.stop == other.start for one, other in pairwise(ends))


def _is_described(
    store: bytes, box: Box, kind: bytes, label: str, *, is_cbor: bool = False
) -> bool:
    """Whether a superbox has this description and no more, and then what it should hold."""
    described = b"".join((kind, _UUID, bytes((_REQUESTABLE,)), label.encode(), b"\0"))
    head = b"".join(((len(described) + HEADER).to_bytes(4), b"jumd", described))
    if is_cbor:
        head += (box.content.stop - box.body.start + HEADER).to_bytes(4) + b"cbor"
    return store[box.content.start :].startswith(head) and (
        len(head) == box.body.start - box.content.start - (0 if is_cbor else HEADER)
    )


def _is_signature(cose: bytes) -> bool:
    """Whether a COSE_Sign1 has a signature and zeros, and nothing else that is not signed.

    In one piece, unless no piece has their size: of a file, all together have one that is bound.
    """
    start = _COSE_SIGN1 + byte_string(read_byte_string(cose, len(_COSE_SIGN1)))
    pads, at = cose[len(start)] - 0xA0, len(start) + 1  # of a map
    parts = [start, bytes((0xA0 + min(max(pads, 0), len(_PADS)),))]
    for name in _PADS[: max(pads, 0)]:
        zeros = byte_string(bytes(len(read_byte_string(cose, at + len(name)))))
        parts += [name, zeros]
        at += len(name) + len(zeros)
    if pads != 1 and _in_one_piece(at - len(start)):
        return False
    signature = read_byte_string(cose, at + len(_NO_PAYLOAD))
    return cose == b"".join((*parts, _NO_PAYLOAD, byte_string(signature)))


def _in_one_piece(size: int) -> bool:
    """Whether a map of this size can hold zeros under one name."""
    rest = size - 1 - len(_PADS[0])
    return any(len(byte_string(bytes(max(0, rest - head)))) == rest for head in (1, 2, 3))

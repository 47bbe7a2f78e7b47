"""JUMBF boxes (ISO 19566-5) as far as a manifest store has them, and heads of CBOR (RFC 8949)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

HEADER = 8  # bytes: size and type
LABEL_AT = 17  # in a description: after the type of its content, and toggles


@dataclass(frozen=True)
class Box:
    """A superbox: its label, and where its content is, from its description on."""

    label: str
    content: slice
    body: slice  # of the first box after the description, its header excluded


def boxes(store: bytes, within: slice | None = None) -> Iterator[Box]:
    """All superboxes, outer ones first. Raises `ValueError` if there is something else."""
    within = within or slice(0, len(store))
    for kind, content in _walk(store, within):
        if kind != b"jumb":
            continue
        inner = list(_walk(store, content))
        if len(inner) < 2 or inner[0][0] != b"jumd":
            raise ValueError("a superbox without a description or content")
        description = store[inner[0][1]]
        label = description[LABEL_AT : description.index(0, LABEL_AT)].decode()
        yield Box(label, content, inner[1][1])
        yield from boxes(store, slice(inner[0][1].stop, content.stop))


def _walk(store: bytes, within: slice) -> Iterator[tuple[bytes, slice]]:
    at = within.start
    while at < within.stop:
        header = store[at : min(at + HEADER, within.stop)]
        size, kind = int.from_bytes(header[:4]), header[4:]
        if len(header) < HEADER or size < HEADER or at + size > within.stop:
            raise ValueError("a box that does not fit")
        yield kind, slice(at + HEADER, at + size)
        at += size


@lru_cache(maxsize=256)
def uint(value: int, width: int) -> bytes | None:
    """A CBOR number whose head and value have this width; None if it does not fit."""
    if width == 1:
        return bytes((value,)) if value < 24 else None
    if width not in {2, 3, 5, 9} or value >= 1 << 8 * (width - 1):
        return None
    return bytes((0x18 + {2: 0, 3: 1, 5: 2, 9: 3}[width],)) + value.to_bytes(width - 1)


def shortest(value: int) -> bytes:
    """A CBOR number as encoders write it."""
    return next(found for width in (1, 2, 3, 5, 9) if (found := uint(value, width)))


def byte_string(data: bytes) -> bytes:
    """A CBOR byte string."""
    head = shortest(len(data))
    return bytes((head[0] | 0x40,)) + head[1:] + data


def read_byte_string(data: bytes, at: int) -> bytes:
    """The CBOR byte string at a place. Raises `ValueError` if there is none."""
    kind, more = data[at] >> 5, data[at] & 31
    if kind != 2 or more > 26:
        raise ValueError("no byte string")
    width = {24: 1, 25: 2, 26: 4}.get(more, 0)
    size = int.from_bytes(data[at + 1 : at + 1 + width]) if width else more
    return data[at + 1 + width : at + 1 + width + size]

"""How an encrypted store writes its objects and their names. Knows no store.

An object is a header and chunks of 64 KiB, each encrypted with AES-256-GCM after the STREAM
construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce is the chunk's number and whether
it is the last one, so that chunks cannot be left out, cut off, repeated or put in another order.

    header   magic (8 bytes), id of the data key (8), salt (32)
    chunk    up to 65,536 bytes encrypted, tag (16); only the last one is shorter, or empty

Each object has a key of its own, made from the data key, the header and the object's key in the
store: moved to another place, it cannot be opened. The salt is made from the content's digest as in
SIV (RFC 5297): equal bytes stored again are equal, and a nonce never meets other content.

The digest that a name ends in is encrypted with AES-SIV and the folder, because whoever can guess
some content could look for its digest.
"""

import hashlib
import hmac
import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from db.errors import DigestMismatch
from worker.store.base import Blob, digest_in_key

CIPHER = "aes-256-gcm"
KEY_BYTES = 32
CHUNK = 64 << 10
TAG = 16
SEALED = CHUNK + TAG  # bytes of a chunk in the store
MAGIC = b"GENMILL\x01"
HEADER = len(MAGIC) + 8 + 32
SUFFIX = ".enc"  # of a name that is no digest

_NAME = 2 * (16 + 32)  # hexadecimal digits of an encrypted digest
_COUNTER = 11  # bytes of the nonce that hold a chunk's number


class Secrets:
    """What follows from a store's data key. May be shared between threads and processes."""

    def __init__(self, data_key: bytes) -> None:
        self.id = _derive(data_key, "id", 8)
        self._names = AESSIV(_derive(data_key, "names", 64))
        self._salts = _derive(data_key, "salts", 32)
        self._objects = _derive(data_key, "objects", 32)

    def name(self, key: str) -> str:
        """The name in the store of the object `key`."""
        if not (digest := digest_in_key(key)):
            return key + SUFFIX
        folder = key[: -len(digest)]
        return folder + self._names.encrypt(bytes.fromhex(digest), [folder.encode()]).hex()

    def key_of(self, name: str) -> str | None:
        """The inverse of `name`; None for what an encrypted store does not call its objects."""
        folder, last = name[: name.rfind("/") + 1], name[name.rfind("/") + 1 :]
        if last.endswith(SUFFIX):
            return name.removesuffix(SUFFIX)
        if len(last) != _NAME:
            return None
        try:
            return folder + self._names.decrypt(bytes.fromhex(last), [folder.encode()]).hex()
        except (InvalidTag, ValueError):
            return None

    def header(self, key: str, sha256: str) -> bytes:
        """What the object `key` begins with if its content has this digest."""
        salt = hmac.digest(self._salts, f"{key}\n{sha256}".encode(), "sha256")
        return MAGIC + self.id + salt

    def chunks(self, key: str, header: bytes) -> "Chunks":
        """The chunks that follow a header. Raises `DigestMismatch` for what is none of ours."""
        if len(header) != HEADER or not header.startswith(MAGIC):
            raise DigestMismatch(
                f"object {key} is not encrypted, or its beginning was changed or cut off",
                remedy="restore it from a backup",
            )
        found = header[len(MAGIC) : len(MAGIC) + len(self.id)]
        if found != self.id:
            raise DigestMismatch(
                f"object {key} was encrypted with the data key {found.hex()}, and that of this "
                f"store is {self.id.hex()}",
                remedy="it was copied from another store: bring it here with `genmill backup` and "
                "`genmill restore`",
            )
        return Chunks(key, hmac.digest(self._objects, header + key.encode(), "sha256"))


class Chunks:
    """Encrypts and decrypts the chunks of one object."""

    def __init__(self, key: str, secret: bytes) -> None:
        self._key = key
        self._aead = AESGCM(secret)

    def seal(self, number: int, data: bytes | memoryview) -> bytes:
        """A chunk as it is stored; the one that is not full is the last one."""
        return self._aead.encrypt(_nonce(number, last=len(data) < CHUNK), data, None)

    def open(self, number: int, sealed: bytes) -> bytes:
        """The inverse. Raises `DigestMismatch` for a chunk that is not this one, or was changed."""
        try:
            return self._aead.decrypt(_nonce(number, last=len(sealed) < SEALED), sealed, None)
        except (InvalidTag, ValueError):
            begin = number * CHUNK
            raise DigestMismatch(
                f"object {self._key} was changed in the store, or cut off: its bytes from "
                f"{begin:,} to {begin + CHUNK:,} are not those that were encrypted",
                remedy="restore it from a backup, or see `genmill doctor --audit --repair`",
            ) from None


def seal(secrets: Secrets, blob: Blob, data: bytes) -> bytes:
    """The whole object as it is stored: `data`, which `blob` describes."""
    header, view = secrets.header(blob.key, blob.sha256), memoryview(data)
    chunks = secrets.chunks(blob.key, header)
    return b"".join([header, *(chunks.seal(n, part) for n, part in enumerate(_parts(view)))])


def sealed_size(size: int) -> int:
    """The bytes in the store of an object of `size` bytes."""
    return HEADER + size + TAG * (size // CHUNK + 1)


def opened_size(size: int) -> int:
    """The inverse; 0 for what is shorter than any object."""
    body = size - HEADER
    return max(0, body - TAG * (body // SEALED + 1))


def offset_of(number: int) -> int:
    """Where a chunk begins in the store."""
    return HEADER + number * SEALED


class Measured(NamedTuple):
    """The content of a file: its SHA-256, its size, and the digest of each of its chunks."""

    sha256: str
    size: int
    digests: tuple[bytes, ...]


def measure(file: BinaryIO) -> Measured:
    """Read a file once, from its beginning."""
    whole, size, digests = hashlib.sha256(), 0, list[bytes]()
    while not digests or size == len(digests) * CHUNK:
        data = file.read(CHUNK)
        whole.update(data)
        size += len(data)
        digests.append(hashlib.sha256(data).digest())
    return Measured(whole.hexdigest(), size, tuple(digests))


class SealedFile(io.RawIOBase):
    """A file as an encrypted store stores it: a seekable stream that holds one chunk in memory.

    Raises `DigestMismatch` in place of a chunk that is not as it was measured: the same nonce would
    meet two contents. A store may read it several times.
    """

    def __init__(self, file: BinaryIO, found: Measured, header: bytes, chunks: Chunks) -> None:
        """`found` is what `file` was measured as."""
        self._file, self._found = file, found
        self._header, self._chunks = header, chunks
        self._size = sealed_size(found.size)
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")  # the latest chunk, with its number

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position, as files do."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # a Buffer, in effect
        """Read some bytes."""
        if self._at >= self._size:
            return 0
        if self._at < HEADER:
            piece, start = self._header, self._at
        else:
            number, start = divmod(self._at - HEADER, SEALED)
            piece = self._chunk(number)
        data = memoryview(piece)[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _chunk(self, number: int) -> bytes:
        if self._held[0] != number:
            self._file.seek(number * CHUNK)
            data = self._file.read(CHUNK)
            if hashlib.sha256(data).digest() != self._found.digests[number]:
                raise DigestMismatch(
                    "a file was changed while it was stored",
                    remedy="store it again when it is complete",
                )
            self._held = (number, self._chunks.seal(number, data))
        return self._held[1]


class Pieces(io.RawIOBase):
    """A stream of pieces, which may be of any size."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # a Buffer, in effect
        """Read some bytes."""
        if not self._left:
            self._left = next(self._pieces, self._left)
        data = self._left[: len(buffer)]
        buffer[: len(data)] = data
        self._left = self._left[len(data) :]
        return len(data)

    def readall(self) -> bytes:
        """Read what is left."""
        return b"".join([self._left, *self._pieces])


def cut(pieces: Iterator[bytes], skip: int, size: int | None) -> Iterator[memoryview]:
    """All but the first `skip` bytes, less than a chunk, and at most `size`; no piece is empty."""
    for piece in pieces:
        view = memoryview(piece)[skip:]
        skip = 0
        if size is not None:
            view = view[:size]
            size -= len(view)
        if view:
            yield view


def _parts(view: memoryview) -> Iterator[memoryview]:
    for number in range(len(view) // CHUNK + 1):
        yield view[number * CHUNK : (number + 1) * CHUNK]


def _derive(data_key: bytes, purpose: str, size: int) -> bytes:
    info = f"genmill store 1 {purpose}".encode()
    return HKDFExpand(algorithm=SHA256(), length=size, info=info).derive(data_key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_COUNTER, "big") + bytes([last])

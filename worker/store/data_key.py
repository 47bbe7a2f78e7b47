"""The data key of an encrypted store: wrapped in the store itself, unwrapped once a process.

Everything in the store is encrypted with what follows from it, so there is one for the life of a
store. The key that wraps it may change: then one small object is replaced, and no other.
"""

import base64
import json
import secrets
import threading
from collections.abc import Callable
from typing import Protocol

from db.errors import GenmillError, Unreachable
from worker.files import canonical_json
from worker.store.base import ENCRYPTION, SENTINEL, STORE_KEY
from worker.store.byte_store import ByteStore
from worker.store.sealing import CIPHER, KEY_BYTES, Secrets

CONTEXT = "the key of the object store"  # that the wrapped key is bound to
FORMAT = 1


class Wrapping(Protocol):
    """What wraps the data key: see `worker.keys.master`."""

    def wrap(self, data: bytes, context: str) -> bytes:
        """`data`, encrypted and bound to its context."""

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """The inverse."""


class DataKey:
    """The data key of one store. May be shared between threads.

    Raises `Unreachable` where the key is there and cannot be had, as without the installation key:
    another machine may have that, and this one may have it later.
    """

    def __init__(
        self,
        store: ByteStore,
        wrapping: Callable[[], Wrapping],
        *,
        refuse_other: Callable[[], None] = lambda: None,
    ) -> None:
        """`wrapping` gives what wraps keys; it is asked when that is needed.

        `refuse_other` is called before a key is made: it raises for another one than others use.
        """
        self._store, self._wrapping, self._refuse_other = store, wrapping, refuse_other
        self._found: bytes | None = None
        self._lock = threading.RLock()

    def find(self) -> bytes | None:
        """The key; None if the store has none. Has it unwrapped once."""
        with self._lock:
            if self._found is None and self._store.has(STORE_KEY):
                self._found = self._unwrap()
            return self._found

    def require(self) -> bytes:
        """The key. Raises `Unreachable` for a plain store, too."""
        found, cipher = self.find(), self._store.read_cipher()
        if found is not None and (cipher or not self._store.has(SENTINEL)):
            return found
        if cipher:
            raise self._damaged("it is missing")
        raise Unreachable(
            f"object store {self._store} is not encrypted, and {ENCRYPTION} is {CIPHER}",
            remedy=f"unset {ENCRYPTION}, or encrypt what there is with `genmill store encrypt`",
        )

    def make(self) -> bytes:
        """The key, which is made for a new store. Raises `Unreachable` for a plain one in use.

        Only one process may do it at a time: the one that is slower could replace the key.
        """
        with self._lock:
            if not self._store.has(SENTINEL):
                self.prepare()
            return self.require()

    def prepare(self) -> None:
        """Make the key, also of a plain store in use, which stays one until `take_over`."""
        with self._lock:
            if self.find() is None:
                self._refuse_other()
                document = _document(self._wrapping(), secrets.token_bytes(KEY_BYTES))
                self._store.put_as(STORE_KEY, document)

    def take_over(self, store_id: str) -> None:
        """Turn a plain store into an encrypted one, when its objects are there as such."""
        self._store.replace(SENTINEL, _sentinel(store_id))

    def put_sentinel(self, store_id: str) -> None:
        """Make the sentinel, which says how the store is encrypted, after the key.

        As with `make`, one process at a time. Raises `DigestMismatch` if there is another one.
        """
        self.make()
        self._store.put_as(SENTINEL, _sentinel(store_id))

    def rewrap(self, wrapping: Wrapping) -> None:
        """Have the key wrapped by something else from now on."""
        self._store.verify()
        if (key := self.find()) is None:
            raise self._damaged("it is missing")
        self._store.replace(STORE_KEY, _document(wrapping, key))

    def _unwrap(self) -> bytes:
        key_id, wrapped = self._read()
        try:
            key = self._wrapping().unwrap(wrapped, CONTEXT)
        except GenmillError as error:
            raise Unreachable(
                f"object store {self._store} is encrypted, and its key cannot be unwrapped: "
                f"{error.message}",
                remedy=error.remedy,
            ) from error
        if len(key) != KEY_BYTES or Secrets(key).id.hex() != key_id:
            raise self._damaged("it holds another key than it says")
        return key

    def _read(self) -> tuple[str, bytes]:
        """The id of the key, and the key as it is wrapped."""
        with self._store.open(STORE_KEY) as file:
            text = file.read()
        try:
            found = json.loads(text)
            if (found["format"], found["cipher"]) == (FORMAT, CIPHER):
                return str(found["key"]), base64.b64decode(found["wrapped"], validate=True)
        except (ValueError, TypeError, LookupError):
            raise self._damaged("it cannot be read") from None
        raise self._damaged("it was written by another version of Genmill")

    def _damaged(self, why: str) -> Unreachable:
        return Unreachable(
            f"object {STORE_KEY!r} of the object store {self._store}: {why}",
            remedy="restore this object from a copy of the store; without it, nothing in the store "
            "can be read",
        )


def _sentinel(store_id: str) -> bytes:
    return f"{store_id}\n{CIPHER}".encode()


def _document(wrapping: Wrapping, key: bytes) -> bytes:
    """What the store holds of its key."""
    wrapped = wrapping.wrap(key, CONTEXT)
    if wrapping.unwrap(wrapped, CONTEXT) != key:
        raise Unreachable("what wraps keys does not unwrap them", remedy="nothing was changed")
    text = base64.b64encode(wrapped).decode()
    return canonical_json(
        {"format": FORMAT, "cipher": CIPHER, "key": Secrets(key).id.hex(), "wrapped": text}
    )

"""Encrypting what is in a plain store, while nothing else uses it.

Every object is stored once more, encrypted, under another name. When all are there, the sentinel is
replaced: until then the store is the plain one that it was, from then on it is an encrypted one,
and the plain objects go. Killed at any point, the same command goes on.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from sqlalchemy.orm import Session

from db import own_store, workers
from db.errors import Refused
from scheduler.audit.byte_checks import Objects, distinct
from scheduler.audit.objects import named_objects
from scheduler.output.render import to_count
from scheduler.results.threads import in_order
from worker.files import disk_errors
from worker.services import Services
from worker.services.store_owner import StoreOwner
from worker.store import ByteStore, ObjectStore, open_store
from worker.store.base import ENCRYPTION, digest_in_key
from worker.store.data_key import DataKey
from worker.store.encrypted import EncryptedStore

FOLDERS = ("jobs", "datasets", "models", "packs", "prompts")

Show = Callable[[str, int], None]  # what is done, and with how many objects so far


@dataclass
class Encrypted:
    """What was done."""

    objects: int = 0  # that were encrypted
    size_bytes: int = 0  # of them
    deleted: int = 0  # plain ones


def encrypt_store(services: Services, *, show: Show = lambda *_: None) -> Encrypted:
    """Turn the store of the settings, which say that it is encrypted, into one that is.

    Raises `Refused` if anything may use it, `DigestMismatch` for an object that is damaged, and
    `Unreachable`; the store is then what it was.
    """
    _refuse_in_use(services)
    done, settings = Encrypted(), services.settings
    plain = open_store(settings.store, s3_endpoint_url=settings.s3_endpoint_url)
    if plain.read_cipher() is None:
        _encrypt(services, plain, done, show)
    store = services.store
    store.verify()
    plain.owner = None  # the store is no plain one any more
    delete = partial(_delete, plain, store)
    for keys in _passes(services, plain, store):
        for deleted in in_order(delete, keys):
            done.deleted += deleted
            show("plain objects deleted", done.deleted)
    return done


def _refuse_in_use(services: Services) -> None:
    if services.settings.store_encryption == "none":
        raise Refused(
            f"{ENCRYPTION} is none", remedy=f"set {ENCRYPTION}=aes-256-gcm for this command"
        )
    with services.database.read() as session:
        live = workers.live(session, within_s=services.settings.lease_s)
    if live:
        raise Refused(
            f"{to_count(len(live), 'worker')} {'is' if len(live) == 1 else 'are'} live, such as "
            f"{live[0].host}:{live[0].pid}",
            remedy="stop all workers and schedulers first; they would go on with a plain store",
        )


def _encrypt(services: Services, plain: ByteStore, done: Encrypted, show: Show) -> None:
    """Store every object encrypted; then say in the sentinel that they are."""
    plain.owner = StoreOwner(lambda: services.database)
    plain.verify()
    store_id = plain.read_sentinel()
    data_key = services.data_key(plain)
    assert store_id is not None  # noqa: S101 - for mypy: it is verified
    assert data_key is not None  # noqa: S101 - for mypy: the settings ask for it
    services.database.transact(partial(_prepare, data_key=data_key))
    encrypted = EncryptedStore(plain, data_key)
    home = services.settings.home
    with disk_errors(home), tempfile.TemporaryDirectory(prefix="encrypt-", dir=home) as folder:
        copy = partial(_copy, plain, encrypted, Path(folder))
        for keys in _passes(services, plain, plain):
            for size in in_order(copy, keys):
                done.objects += size is not None
                done.size_bytes += size or 0
                show("objects encrypted", done.objects)
    encrypted.flush()
    data_key.take_over(store_id)


def _prepare(session: Session, *, data_key: DataKey) -> None:
    own_store.lock_objects(session, shared=False)  # one process alone makes the key
    data_key.prepare()


def _passes(services: Services, plain: ByteStore, readable: ObjectStore) -> Iterator[Iterator[str]]:
    """Every key in the store; then every key on record, wherever it is in the store."""
    yield chain.from_iterable(map(plain.keys, FOLDERS))
    named = named_objects(services.database.snapshot, Objects(readable).read)
    yield (each.key for each in distinct(named))


def _copy(plain: ByteStore, encrypted: EncryptedStore, folder: Path, key: str) -> int | None:
    """Encrypt an object, and return its size; None if it was or is encrypted, or is missing."""
    if encrypted.is_name(key) or encrypted.has(key) or not plain.has(key):
        return None
    path = folder / secrets.token_hex(8)
    sha256 = digest_in_key(key)
    plain.fetch(key, path, sha256=sha256 or None, durable=False)
    try:
        if not sha256:
            return encrypted.put_as(key, path.read_bytes(), durable=False).size
        return encrypted.put(key.rpartition("/")[0], path).size
    finally:
        path.unlink(missing_ok=True)


def _delete(plain: ByteStore, encrypted: ObjectStore, key: str) -> bool:
    """Delete a plain object that has an encrypted copy; return whether it was there."""
    if not encrypted.has(key) or not plain.has(key):
        return False
    plain.delete(key)
    return True

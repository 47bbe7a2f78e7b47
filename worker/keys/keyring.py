"""The keys of an installation as marks and the ledger use them, read from the record once.

Secrets stay wrapped until they are asked for, so that a keyring can be printed and passed around. A
keyring of a trust bundle has no secrets: it only verifies.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric import ed25519

from db import keys
from db.errors import BadInput, NotFound, Refused, WrongKey
from db.keys import ALL_TENANTS, Purpose
from worker.keys.certificates import (
    Signer,
    algorithm_of,
    anchor_of,
    read_private,
    refuse_expired,
    serial_of,
    without_root,
)
from worker.keys.master import Master, open_master

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.tables import Key
    from worker.settings import Settings

OF_INSTALLATION = frozenset({Purpose.AUTHORITY, Purpose.HEAD})  # the others are a tenant's each


@dataclass(frozen=True)
class HeldKey:
    """A key without its secret, which `Keyring.secret_of` gives."""

    id: str
    purpose: Purpose
    tenant: str
    public: str | None  # PEM: certificates, the signing one first, or a public key
    created_at: datetime
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None
    reason: str | None = None  # why it was revoked

    @property
    def is_current(self) -> bool:
        """Whether new things are made with it."""
        return self.rotated_at is None and self.revoked_at is None

    @property
    def state(self) -> str:
        """Current, rotated or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "current" if self.rotated_at is None else "rotated"

    @property
    def told_revoked(self) -> str:
        """Of a revoked key, when it was revoked and why, in words."""
        return f"key {self.id} was revoked on {self.revoked_at:%Y-%m-%d}: {self.reason}"

    @property
    def is_certified(self) -> bool:
        """Whether `public` is made of certificates."""
        return self.purpose in {Purpose.SIGNING, Purpose.AUTHORITY}

    @cached_property
    def serial(self) -> str | None:
        """Of a signing key, the serial number of its certificate."""
        return serial_of(self.public) if self.public and self.purpose is Purpose.SIGNING else None

    @cached_property
    def anchor(self) -> str:
        """Of a signing key, the certificate that its signatures lead up to, as PEM."""
        return anchor_of(self.public) if self.public and self.purpose is Purpose.SIGNING else ""


@dataclass(frozen=True)
class Keyring:
    """All keys of an installation. `tenant` says whose are the current ones.

    `pinned` has, by purpose, the ids of keys to use in place of the current ones.
    """

    keys: tuple[HeldKey, ...]  # oldest first
    tenant: str = "default"
    pinned: Mapping[str, str] = field(default_factory=dict)
    _wrapped: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    _master: Master | None = field(default=None, repr=False)

    def current(self, purpose: str) -> HeldKey:
        """The key by which things are made: the pinned one, or the tenant's current one.

        Raises `NotFound` if there is none, and `Refused` for a pinned one that was revoked since.
        """
        wanted = Purpose(purpose)
        if wanted in self.pinned:
            key = self.get(self.pinned[wanted])
            if key.purpose is not wanted:
                raise Refused(f"key {key.id} is no {wanted} key: it is for {key.purpose}")
            if key.revoked_at is not None:
                raise Refused(
                    key.told_revoked, remedy="submit the job again: it will use the current key"
                )
            return key
        tenant = tenant_of(wanted, self.tenant)
        for key in self.keys:
            if (key.purpose, key.tenant, key.is_current) == (wanted, tenant, True):
                return key
        raise self._missing(wanted, tenant)

    def _missing(self, purpose: Purpose, tenant: str) -> NotFound:
        whose = f"tenant {tenant!r} has" if tenant else "this installation has"
        option = f" --tenant {tenant}" if tenant not in {ALL_TENANTS, "default"} else ""
        gone = [
            f": {key.told_revoked}"
            for key in self.keys
            if (key.purpose, key.tenant) == (purpose, tenant) and key.revoked_at is not None
        ]
        return NotFound(
            f"{whose} no {'current ' if gone else ''}{purpose} key{''.join(gone[-1:])}",
            remedy=f"`genmill key create {purpose}{option}` makes {'another' if gone else 'one'}",
        )

    def get(self, key_id: str) -> HeldKey:
        """The key with this id. Raises `NotFound`."""
        for key in self.keys:
            if key.id == key_id:
                return key
        raise NotFound.unknown("key", key_id, (key.id for key in self.keys))

    def all(self, purpose: str) -> tuple[HeldKey, ...]:
        """Every key for a purpose, of all tenants, to verify with: rotated and revoked ones too."""
        return tuple(key for key in self.keys if key.purpose == purpose)

    def use(self, pinned: Mapping[str, str]) -> Self:
        """This keyring, using the keys with these ids, by purpose, in place of the current ones."""
        return replace(self, pinned=dict(pinned))

    def secret(self, purpose: str) -> bytes:
        """The secret of the key in use. Raises what `current` and `secret_of` raise."""
        return self.secret_of(self.current(purpose).id)

    def secret_of(self, key_id: str) -> bytes:
        """The secret of any key.

        Raises `NotFound`, and `WrongKey` or `Unreachable` where it cannot be unwrapped: also for an
        installation key that this machine refuses, because it is no fault of what it is needed for.
        """
        wrapped = self._wrapped.get(self.get(key_id).id)
        if self._master is None or wrapped is None:
            raise WrongKey(
                f"the secret of key {key_id} is not here: a trust bundle has none",
                remedy="verify on a machine of the installation",
            )
        with _of_machine():
            return self._master.unwrap(wrapped, context_of(key_id))

    def signer(self) -> Signer:
        """What signatures are made with: the tenant's current signing key, or the pinned one."""
        key = self.current(Purpose.SIGNING)
        private = self.secret_of(key.id)
        chain = without_root(key.public or "")
        return Signer(key.id, algorithm_of(read_private(private)), chain, private)

    def head_key(self) -> tuple[str, ed25519.Ed25519PrivateKey]:
        """The id and the private key by which heads of the ledger are signed."""
        key = self.current(Purpose.HEAD)
        private = read_private(self.secret_of(key.id))
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise BadInput(f"key {key.id} is no Ed25519 key", remedy="rotate it")
        return key.id, private

    @cached_property
    def anchors(self) -> str:
        """The certificates, as PEM, that signatures of ours lead up to.

        The installation's authorities, and the last certificates of imported chains. Those of
        revoked keys too: what they signed is ours, and is told as revoked.
        """
        return _anchors_of(self.keys)

    @property
    def live_anchors(self) -> str:
        """Those of keys that are not revoked: for readers who know of no revocation."""
        return _anchors_of(key for key in self.keys if key.revoked_at is None)

    def examine(self) -> str:
        """What there is, in words. Raises `WrongKey` for a secret that cannot be unwrapped here.

        And `Refused` for a current certificate that is not valid any more.
        """
        current = [key for key in self.keys if key.is_current]
        for key in self.keys:
            self.secret_of(key.id)
        for key in current:
            if key.is_certified and key.public:
                refuse_expired(key.id, key.public)
        return f"{len(self.keys)} on record, {len(current)} of them current; all can be unwrapped"

    def signing_key(self, serial: str) -> HeldKey | None:
        """The signing key whose certificate has this serial number."""
        known = (key for key in self.all(Purpose.SIGNING) if key.serial == serial)
        return next(known, None)


def _anchors_of(keys: Iterable[HeldKey]) -> str:
    found = sorted(keys, key=lambda key: key.purpose is not Purpose.AUTHORITY)
    given = (key.public if key.purpose is Purpose.AUTHORITY else key.anchor for key in found)
    return "".join(dict.fromkeys(filter(None, given)))


def load_keyring(session: "Session", settings: "Settings", *, tenant: str | None = None) -> Keyring:
    """The keyring of the record. No secret is unwrapped yet. `tenant` is by default that set.

    Raises `WrongKey` for settings that name no installation key.
    """
    rows = keys.listing(session)
    with _of_machine():
        master = open_master(settings)
    return Keyring(
        tuple(map(held, rows)),
        tenant or settings.tenant,
        _wrapped={row.id: row.wrapped for row in rows},
        _master=master,
    )


@contextmanager
def _of_machine() -> Iterator[None]:
    """Raise `WrongKey` for what this machine's installation key is refused for."""
    try:
        yield
    except Refused as error:
        raise WrongKey(error.message, remedy=error.remedy) from error


def public_keyring(session: "Session") -> Keyring:
    """The keyring of the record without any secret, not even a wrapped one."""
    return Keyring(tuple(map(held, keys.listing(session))))


def held(row: "Key") -> HeldKey:
    """A key of the record without its secret."""
    return HeldKey(
        row.id,
        Purpose(row.purpose),
        row.tenant,
        row.public,
        row.created_at,
        row.rotated_at,
        row.revoked_at,
        row.reason,
    )


def tenant_of(purpose: Purpose, tenant: str) -> str:
    """Whose key it is: the tenant's, or the whole installation's."""
    return ALL_TENANTS if purpose in OF_INSTALLATION else tenant


def refuse_other(master: Master, known: keys.Wrapped | None) -> None:
    """Raise `WrongKey` unless `master` is the installation key that wrapped what is known."""
    if known is None:
        return
    try:
        master.unwrap(known.wrapped, context_of(known.id))
    except WrongKey as error:
        raise WrongKey(
            f"keys on record were wrapped by another installation key: {error.message}",
            remedy="set GENMILL_KEY_FILE to the file that wrapped them, or GENMILL_KEY_COMMAND; "
            "`genmill key rewrap` changes to another one afterwards",
        ) from error


def context_of(key_id: str) -> str:
    """What a secret is bound to when it is wrapped."""
    return f"key {key_id}"

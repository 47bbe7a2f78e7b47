"""Creating, rotating and revoking keys; each is in the audit trail.

Before anything is wrapped, a secret on record is unwrapped: a machine with another installation key
would add a key that no other machine can use. Wrapping may run a command, so it is done before the
transaction begins.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from db import keys
from db.audit_trail import note
from db.errors import NotFound, Refused
from db.keys import ALL_TENANTS, NewKey, Purpose
from worker.keys import certificates
from worker.keys.keyring import OF_INSTALLATION, context_of, tenant_of
from worker.keys.master import Master
from worker.specs import NAME_PATTERN, NAME_RULE

if TYPE_CHECKING:
    from db.session import Database
    from db.tables import Key

SECRET_BYTES = 32
ID_BYTES = 8
DEFAULT_NAME = "Genmill"
MAX_REASON = 1000  # characters
MAX_NAME = 64  # characters of an organisation's name in a certificate


@dataclass(frozen=True)
class Import:
    """A user's own certificates and private key, both PEM."""

    chain: str
    private: bytes = field(repr=False)


def create(
    database: "Database",
    master: Master,
    purpose: Purpose,
    tenant: str,
    *,
    name: str | None = None,
    imported: Import | None = None,
    who: str,
) -> "Key":
    """Make the first key of a tenant for a purpose, for signing with the organisation's `name`.

    The first signing key makes the installation's authority. Raises `Refused` if there is a current
    key, and `BadInput` for what cannot be imported.
    """
    if purpose not in OF_INSTALLATION and not re.fullmatch(NAME_PATTERN, tenant):
        raise Refused(f"{tenant[:80]!r} cannot be the name of a tenant", remedy=NAME_RULE)
    tenant = tenant_of(purpose, tenant)
    with database.read() as session:
        known = keys.listing(session)
        if found := keys.current(session, purpose, tenant):
            made_itself = "Genmill makes it itself when it needs one: there is nothing to do; "
            raise Refused(
                f"{found.id} is the current {purpose} key already",
                remedy=(made_itself if purpose in OF_INSTALLATION else "")
                + f"`genmill key rotate {found.id}` replaces it",
            )
    name = DEFAULT_NAME if name is None else name
    made = _make(master, known, purpose, tenant, name, imported)
    return database.transact(lambda session: _add(session, made, who)[-1])


def rotate(
    database: "Database",
    master: Master,
    key_id: str,
    *,
    name: str | None = None,
    imported: Import | None = None,
    who: str,
) -> "Key":
    """Make a key in place of a current one, which goes on verifying what it made."""
    with database.read() as session:
        old, known = keys.get(session, key_id), keys.listing(session)
    _refuse_replaced(old)
    purpose = Purpose(old.purpose)
    if purpose is Purpose.SIGNING and imported is None and not _is_own(old, known):
        raise Refused(
            f"key {old.id} was imported: its certificate is not of this installation's CA",
            remedy="give the next one with --certificate and --private-key, or revoke this one and "
            "create another",
        )
    if name is None:
        name = _organisation(old) or DEFAULT_NAME
    *before, new = _make(master, known, purpose, old.tenant, name, imported)

    def replace(session: Session) -> "Key":
        _add(session, before, who)
        note(session, who, "rotated", old.id, {"purpose": purpose.value, "replaced_by": new.id})
        return keys.rotate(session, new, replaced=old.id)

    return database.transact(replace)


def revoke(session: Session, key_id: str, reason: str, *, who: str) -> list["Key"]:
    """Revoke a key, and with an authority every key that it issued; return all of them.

    Raises `Refused` for a reason that says nothing, or too much for a trust bundle.
    """
    if not reason.strip() or len(reason) > MAX_REASON:
        raise Refused(
            f"a reason of {len(reason):,} characters",
            remedy=f"say why in 1 to {MAX_REASON:,} characters, for all who verify",
        )
    key = keys.get(session, key_id)
    also: list[str] = []
    if key.purpose == Purpose.AUTHORITY and key.public:
        signing = keys.listing(session, Purpose.SIGNING)
        also = [each.id for each in signing if (each.public or "").endswith(key.public)]
    for each in (key.id, *also):
        if keys.get(session, each, lock=True).revoked_at is None:
            note(session, who, "revoked", each, {"reason": reason})
    return keys.revoke(session, [key.id, *also], reason)


def find(session: Session, what: str, tenant: str) -> "Key":
    """The key that `what` names: its id, or a purpose, whose current key is meant.

    Raises `NotFound`.
    """
    if what not in set(Purpose):
        return keys.get(session, what)
    purpose = Purpose(what)
    found = keys.current(session, purpose, tenant_of(purpose, tenant))
    if found is None:
        whose = "this installation" if purpose in OF_INSTALLATION else f"tenant {tenant!r}"
        raise NotFound(
            f"{whose} has no current {purpose} key",
            remedy=f"`genmill key create {purpose}` makes one",
        )
    return found


def _add(session: Session, made: Sequence[NewKey], who: str) -> list["Key"]:
    for each in made:
        note(session, who, "created", each.id, {"purpose": each.purpose.value})
    return [keys.add(session, each) for each in made]


def _make(
    master: Master,
    known: Sequence["Key"],
    purpose: Purpose,
    tenant: str,
    name: str,
    imported: Import | None,
) -> list[NewKey]:
    """The new key; before it a new authority, if it is to be issued and there is none."""
    if known:
        master.unwrap(known[-1].wrapped, context_of(known[-1].id))
    if imported is not None:
        if purpose is not Purpose.SIGNING:
            raise Refused(f"a {purpose} key cannot be imported", remedy="only signing keys can")
        certificates.check_import(imported.chain, imported.private)
        return [_wrapped(master, purpose, tenant, imported.chain, imported.private)]
    if purpose is Purpose.SIGNING:
        return _issue(master, known, tenant, _checked(name))
    if purpose is Purpose.AUTHORITY:
        return [_wrapped(master, purpose, tenant, *certificates.make_authority(_checked(name)))]
    if purpose is Purpose.HEAD:
        return [_wrapped(master, purpose, tenant, *certificates.make_head_key())]
    return [_wrapped(master, purpose, tenant, None, secrets.token_bytes(SECRET_BYTES))]


def _issue(master: Master, known: Sequence["Key"], tenant: str, name: str) -> list[NewKey]:
    """A signing key of the current authority; before it a new authority if there is none."""
    current = [
        key
        for key in known
        if key.purpose == Purpose.AUTHORITY and not key.rotated_at and not key.revoked_at
    ]
    made = []
    if current:
        public = current[0].public or ""
        secret = master.unwrap(current[0].wrapped, context_of(current[0].id))
    else:
        public, secret = certificates.make_authority(name)
        made = [_wrapped(master, Purpose.AUTHORITY, ALL_TENANTS, public, secret)]
    issued = certificates.issue(public, secret, name)
    return [*made, _wrapped(master, Purpose.SIGNING, tenant, *issued)]


def _wrapped(
    master: Master, purpose: Purpose, tenant: str, public: str | None, secret: bytes
) -> NewKey:
    key_id = f"key_{secrets.token_hex(ID_BYTES)}"
    return NewKey(key_id, purpose, tenant, public, master.wrap(secret, context_of(key_id)))


def _is_own(key: "Key", known: Sequence["Key"]) -> bool:
    """Whether an authority of the installation issued its certificate."""
    issued_by = (key.public or "").endswith
    authorities = (each.public for each in known if each.purpose == Purpose.AUTHORITY)
    return any(issued_by(public) for public in authorities if public)


def _organisation(key: "Key") -> str | None:
    """Whose name stands in a certificate."""
    if Purpose(key.purpose) not in {Purpose.SIGNING, Purpose.AUTHORITY} or not key.public:
        return None
    return certificates.organisation_of(key.public)


def _refuse_replaced(key: "Key") -> None:
    if key.rotated_at or key.revoked_at:
        state = "revoked" if key.revoked_at else "rotated"
        raise Refused(
            f"key {key.id} was {state} already",
            remedy="`genmill key list` shows the current ones, `genmill key create` makes one",
        )


def _checked(name: str) -> str:
    if not 0 < len(name.strip()) <= MAX_NAME or not name.isprintable():
        raise Refused(
            f"{name[:80]!r} cannot be the name of an organisation in a certificate",
            remedy=f"use 1 to {MAX_NAME} printable characters",
        )
    return name

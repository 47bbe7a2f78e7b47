"""`genmill key`: what signs and marks samples. No command prints a secret."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.key_rewrap import rewrap
from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import as_json, listed
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from worker.keys.changes import Import
    from worker.keys.keyring import HeldKey
    from worker.services import Services

COLUMNS = ("id", "purpose", "tenant", "state", "signer", "created_at", "revoked_at")
MAX_PEM_BYTES = 1 << 20  # of a file to import
PURPOSE = DeclaredChoice("db.keys:Purpose")

_tenant = click.option(
    "--tenant", metavar="NAME", help="Whose key it is. Default: that of GENMILL_TENANT."
)
_name = click.option(
    "--name",
    metavar="TEXT",
    help="Of a signing key, the organisation that its certificate names: readers show it.",
)
_certificate = click.option(
    "--certificate",
    type=PathArgument(path_type=Path),
    metavar="FILE",
    help="Your own certificate chain for signing, as PEM: the signing certificate first.",
)
_private_key = click.option(
    "--private-key",
    type=PathArgument(path_type=Path),
    metavar="FILE",
    help="The private key of that certificate, as PEM. Delete the file after the import.",
)


@click.group("key")
def key() -> None:
    """Keys that sign and mark samples. Secrets are stored wrapped, and never shown."""


key.add_command(rewrap)


@key.command("create")
@click.argument("purpose", type=PURPOSE, metavar="signing|watermark|head|authority")
@_tenant
@_name
@_certificate
@_private_key
@as_json
def create(purpose: str, tenant: str | None, as_json: bool, **given: Any) -> None:
    """Create the first key of a tenant for a purpose, and print its id.

    `signing` signs the provenance of samples (C2PA), with a certificate of this installation's own
    CA, which is made with the first one, or with your own. `watermark` is the secret of a tenant's
    watermarks. `head` signs the ledger: a scheduler makes it when it first does.

    \b
    genmill key create signing --name "Example Ltd"
    genmill key create signing --certificate chain.pem --private-key key.pem
    genmill key create watermark --tenant acme
    """
    from db.keys import Purpose
    from worker.identity import who
    from worker.keys import changes
    from worker.keys.master import open_master

    imported = _imported(given["certificate"], given["private_key"])
    with open_record() as services:
        made = changes.create(
            services.database,
            open_master(services.settings),
            Purpose(purpose),
            _tenant_of(services, tenant),
            name=given["name"],
            imported=imported,
            who=who(),
        )
        _print_made(services, made.id, as_json=as_json)


@key.command("list")
@click.option("--purpose", type=PURPOSE, help="Only keys for this purpose.")
@listed
def list_keys(purpose: str | None, as_json: bool, quiet: bool) -> None:
    """List all keys: the current ones, and the rotated and revoked ones that still verify.

    \b
    genmill key list
    genmill key list --purpose signing --json id,state
    """
    from db import keys
    from db.readable import read_each, refuse_unreadable
    from scheduler.output.render import print_list
    from worker.keys.keyring import held

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            keys.select_all(keys.Purpose(purpose) if purpose else None),
            lambda rows: [_document(held(each)) for (each,) in rows],
        )
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, key="id")
    refuse_unreadable("key", bad)


@key.command("rotate")
@click.argument("reference", metavar="ID|PURPOSE")
@_tenant
@_name
@_certificate
@_private_key
@as_json
def rotate(reference: str, tenant: str | None, as_json: bool, **given: Any) -> None:
    """Replace a current key by a new one, and print the new one's id.

    What the old one signed or marked still verifies. Jobs that were submitted before use the old
    one.

    \b
    genmill key rotate signing
    genmill key rotate watermark --tenant acme
    """
    from worker.identity import who
    from worker.keys import changes
    from worker.keys.master import open_master

    imported = _imported(given["certificate"], given["private_key"])
    with open_record() as services:
        with services.database.read() as session:
            old = changes.find(session, reference, _tenant_of(services, tenant))
        made = changes.rotate(
            services.database,
            open_master(services.settings),
            old.id,
            name=given["name"],
            imported=imported,
            who=who(),
        )
        _print_made(services, made.id, as_json=as_json)


@key.command("revoke")
@click.argument("reference", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for all who verify.")
@as_json
def revoke(reference: str, reason: str, as_json: bool) -> None:
    """Revoke a key for good: whatever it signed or marked reads as revoked. Print what was revoked.

    With an authority, every key that it issued is revoked. Jobs that would use a revoked key fail.
    Give the trust bundle out again, so that others learn of it: `genmill key export`.

    \b
    genmill key revoke key_0123456789abcdef --reason "the laptop was stolen"
    """
    from scheduler.output.render import print_json
    from worker.identity import who
    from worker.keys import changes

    me = who()
    with open_record() as services:
        revoked = services.database.transact(
            lambda session: [each.id for each in changes.revoke(session, reference, reason, who=me)]
        )
        found = [_document(each) for each in _keys(services) if each.id in revoked]
    if as_json:
        print_json(found)
        return
    for each in found:
        click.echo(each["id"])


@key.command("export")
@click.argument("path", type=PathArgument(path_type=Path), metavar="DIR|FILE")
@as_json
def export(path: Path, as_json: bool) -> None:
    """Write what others need to verify what this installation makes; print the files.

    The trust bundle has the certificates, the public keys, and what was rotated and revoked. It has
    no secret, so watermarks cannot be found with it. A FILE ends in .json; a DIR gets trust.json,
    authorities.pem for other C2PA readers, and for verify_proof.py the public keys of the ledger.

    \b
    genmill key export trust.json
    genmill provenance verify --trust trust.json picture.png
    """
    from scheduler.cli.private import shared_as_usual
    from scheduler.output.render import print_json
    from worker.keys.bundle import export_bundle
    from worker.keys.keyring import load_keyring

    with open_record() as services, services.database.read() as session:
        keyring = load_keyring(session, services.settings)
    with shared_as_usual():
        files = export_bundle(keyring, path)
    if as_json:
        print_json({"files": [str(file) for file in files], "keys": len(keyring.keys)})
        return
    for file in files:
        click.echo(str(file))


def _tenant_of(services: "Services", given: str | None) -> str:
    """The tenant that is meant: an empty name, as of an unset variable, is not the default one."""
    return services.settings.tenant if given is None else given


def _imported(certificate: Path | None, private_key: Path | None) -> "Import | None":
    """The user's own chain and key, if both are given."""
    from db.errors import BadInput
    from db.path_errors import read_whole, shown
    from worker.keys.changes import Import

    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise click.UsageError("--certificate and --private-key belong together: give both")
    chain = read_whole(certificate, "a certificate chain", limit_bytes=MAX_PEM_BYTES, piped=True)
    private = read_whole(private_key, "a private key", limit_bytes=MAX_PEM_BYTES, piped=True)
    try:
        return Import(chain.decode("ascii"), private)
    except UnicodeDecodeError:
        raise BadInput(
            f"{shown(certificate)} is not PEM",
            remedy="`openssl x509 -inform DER -in FILE` converts one certificate",
        ) from None


def _keys(services: "Services") -> "Sequence[HeldKey]":
    from worker.keys.keyring import load_keyring

    with services.database.read() as session:
        return load_keyring(session, services.settings).keys


def _print_made(services: "Services", key_id: str, *, as_json: bool) -> None:
    from scheduler.output.render import print_json

    if as_json:
        [found] = [_document(each) for each in _keys(services) if each.id == key_id]
        print_json(found)
    else:
        click.echo(key_id)


def _document(key: "HeldKey") -> dict[str, Any]:
    from worker.keys.certificates import organisation_of

    certified = key.public if key.public and key.is_certified else None
    return {
        "id": key.id,
        "purpose": key.purpose.value,
        "tenant": key.tenant or None,
        "state": key.state,
        "signer": certified and organisation_of(certified),
        "public": key.public,
        "created_at": key.created_at,
        "rotated_at": key.rotated_at,
        "revoked_at": key.revoked_at,
        "reason": key.reason,
    }

"""Keys on record, made as the command line makes them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from db.keys import Purpose
from db.session import Database
from worker.keys import certificates, changes
from worker.keys.changes import Import
from worker.keys.keyring import Keyring, load_keyring
from worker.keys.master import open_master
from worker.settings import Settings


def settings_in(home: Path) -> Settings:
    """Settings whose installation key lies in this home."""
    return Settings(_env_file=None, home=home, key_file=None, key_command=None, tenant="default")


def add_key(database: Database, settings: Settings, purpose: str, **options: object) -> str:
    """Create a key; return its id."""
    master, tenant = open_master(settings), str(options.pop("tenant", settings.tenant))
    return changes.create(database, master, Purpose(purpose), tenant, who="ann", **options).id


def rotate_key(database: Database, settings: Settings, key_id: str) -> str:
    """Rotate a key; return the new one's id."""
    return changes.rotate(database, open_master(settings), key_id, who="ann").id


def revoke_key(database: Database, key_id: str) -> None:
    database.transact(lambda session: changes.revoke(session, key_id, "it was stolen", who="ann"))


def keyring_of(database: Database, settings: Settings, **options: str) -> Keyring:
    with database.read() as session:
        return load_keyring(session, settings, **options)


def own_chain(private=None, *, days=30, usage="signing", names_issuer=True):
    """A chain as a user's own CA would issue it, and the private key."""
    authority, authority_key = certificates.make_authority("Their CA")
    issuer = certificates.read_certificates(authority)[0]
    private = private or ec.generate_private_key(ec.SECP384R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "They")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(certificates._usage(digital_signature=usage != "none"), critical=True)
    )
    oid = {"web": "1.3.6.1.5.5.7.3.1"}.get(usage, "1.3.6.1.5.5.7.3.4")
    builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid)]), False)
    issuer_key = certificates.read_private(authority_key)
    if names_issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    signed = builder.sign(issuer_key, hashes.SHA256())
    pem = signed.public_bytes(certificates.serialization.Encoding.PEM).decode()
    return Import(pem + authority, certificates.private_pem(private))

"""Certificates and private keys of signatures: made by the installation's own CA, or the user's.

Their form is the one that C2PA asks for (Technical Specification 2.2, section 14.5). There is no
time-stamp server, so a signature can be verified for as long as its certificate is valid: the ones
that are made here are valid for long.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from db.errors import BadInput, Refused

AUTHORITY_DAYS, SIGNING_DAYS = 30 * 365, 20 * 365
EARLIER = timedelta(days=1)  # clocks differ
ACCEPTED = {  # extended key usages of C2PA's default trust configuration
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.4.1.62558.2.1": "c2pa-kp-claimSigning",
}
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_REMEDY = "give the chain that your CA issued for signing, the signing certificate first, as PEM"

Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Signer:
    """What signatures are made with. `private` does not show in what is printed."""

    key_id: str
    algorithm: str  # as C2PA names it: es256, ps256, ed25519, ...
    chain: str  # PEM, the signing certificate first
    private: bytes = field(repr=False)  # PEM, PKCS 8


def make_authority(name: str) -> tuple[str, bytes]:
    """A CA of its own for an organisation: its certificate and its private key, both PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, f"{name} content authority")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = _builder(subject, subject, private.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return _signed(builder, private), private_pem(private)


def issue(authority: str, authority_key: bytes, name: str) -> tuple[str, bytes]:
    """A signing certificate of an authority: the chain and the private key, both PEM."""
    issuer, issuer_key = read_certificates(authority)[0], read_private(authority_key)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, f"{name} content signing")
    builder = _builder(subject, issuer.subject, private.public_key(), SIGNING_DAYS)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    used_for = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    builder = builder.add_extension(used_for, critical=False)
    return _signed(builder, issuer_key) + authority, private_pem(private)


def make_head_key() -> tuple[str, bytes]:
    """An Ed25519 pair for the heads of the ledger: public and private key, both PEM."""
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode(), private_pem(private)


def check_import(chain: str, private: bytes) -> None:
    """Raise `BadInput` for a user's chain and key that no C2PA reader would accept."""
    certificates, key = read_certificates(chain), read_private(private)
    signing = certificates[0]
    if signing.public_key() != key.public_key():
        raise BadInput("the private key is not that of the first certificate", remedy=_REMEDY)
    algorithm_of(key)
    _check_dates(signing)
    _check_usage(signing)
    for issued, issuer in itertools.pairwise(certificates):
        try:
            issued.verify_directly_issued_by(issuer)
        except Exception as error:
            raise BadInput(
                f"{_named(issued)} was not issued by {_named(issuer)}, which follows it",
                remedy=_REMEDY,
            ) from error
    if len(certificates) == 1 and signing.issuer == signing.subject:
        raise BadInput(
            f"{_named(signing)} is signed by itself, which C2PA does not accept", remedy=_REMEDY
        )


def read_certificates(chain: str) -> list[x509.Certificate]:
    """The certificates of a PEM text; `BadInput` if it holds none."""
    try:
        return x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        raise BadInput("the certificates are not PEM", remedy=_REMEDY) from None


def read_private(pem: bytes) -> Private:
    """A private key from PEM; `BadInput` for one of a kind that signs nothing here, or encrypted.

    The error shows nothing of it.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise BadInput(
            "the private key is encrypted with a passphrase",
            remedy="`openssl pkey -in KEY -out PLAIN` decrypts it; delete PLAIN after the import",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput("the private key is not PEM", remedy="give it in PKCS 8 as PEM") from None
    if not isinstance(key, Private):
        raise BadInput("the private key is of a kind that C2PA does not sign with", remedy=_KINDS)
    return key


_KINDS = "use ECDSA (P-256, P-384, P-521), Ed25519 or RSA with at least 2,048 bits"


def algorithm_of(key: Private) -> str:
    """The algorithm of signatures with this key, as C2PA names it. Raises `BadInput`."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise BadInput("the private key is of a size that C2PA does not sign with", remedy=_KINDS)


def private_pem(key: Private) -> bytes:
    """A private key as PEM, not encrypted: wrap it before it is written anywhere."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def serial_of(chain: str) -> str:
    """The serial number of the signing certificate, in decimal digits."""
    return str(read_certificates(chain)[0].serial_number)


def refuse_expired(key_id: str, chain: str) -> None:
    """Raise `Refused` if the signing certificate of a key is not valid any more."""
    until = read_certificates(chain)[0].not_valid_after_utc
    if until < datetime.now(UTC):
        raise Refused(
            f"the certificate of key {key_id} was valid until {until:%Y-%m-%d}",
            remedy=f"`genmill key rotate {key_id}` makes another",
        )


def organisation_of(chain: str) -> str | None:
    """The organisation that the signing certificate names."""
    subject = read_certificates(chain)[0].subject
    found = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else None


def without_root(chain: str) -> str:
    """A chain as signatures carry it: who trusts the root has it, and nobody else needs it."""
    certificates = read_certificates(chain)
    sent = [each for each in certificates if each.issuer != each.subject] or certificates
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in sent)


def anchor_of(chain: str) -> str:
    """The last certificate of a chain, as PEM: who trusts it, trusts what the chain signs."""
    return read_certificates(chain)[-1].public_bytes(serialization.Encoding.PEM).decode()


def _check_dates(signing: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if not signing.not_valid_before_utc <= now <= signing.not_valid_after_utc:
        raise BadInput(
            f"{_named(signing)} is valid from {signing.not_valid_before_utc:%Y-%m-%d} "
            f"to {signing.not_valid_after_utc:%Y-%m-%d}, and not now",
            remedy="give one that is valid",
        )


def _check_usage(signing: x509.Certificate) -> None:
    found = {type(each.value): each.value for each in signing.extensions}
    usage, extended = found.get(x509.KeyUsage), found.get(x509.ExtendedKeyUsage)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature:
        raise BadInput(f"{_named(signing)} is not for digital signatures", remedy=_REMEDY)
    if x509.AuthorityKeyIdentifier not in found:
        raise BadInput(f"{_named(signing)} does not name the key of its issuer", remedy=_REMEDY)
    oids = {each.dotted_string for each in extended or ()}
    if not oids & ACCEPTED.keys():
        raise BadInput(
            f"{_named(signing)} has no extended key usage that C2PA accepts",
            remedy=f"let it have one of {', '.join(ACCEPTED.values())}",
        )


def _named(certificate: x509.Certificate) -> str:
    return f"the certificate of {certificate.subject.rfc4514_string()!r}"


def _subject(organisation: str, common_name: str) -> x509.Name:
    pairs: Sequence[tuple[x509.ObjectIdentifier, str]] = (
        (NameOID.ORGANIZATION_NAME, organisation),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(**given: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    more = ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: given.get(name, False) for name in (*names, *more)})


def _signed(builder: x509.CertificateBuilder, issuer: Private) -> str:
    """The certificate as PEM, signed by its issuer."""
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    certificate = builder.add_extension(identifier, critical=False).sign(issuer, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

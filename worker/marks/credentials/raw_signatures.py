"""Signatures in the form that COSE has them in (RFC 9053): of one length for each key."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509 import Certificate

from worker.keys.certificates import Private

_CURVE_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)


def sign(private: Private, data: bytes) -> bytes:
    """The signature of `data`."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(data)
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(data, _PSS, hashes.SHA256())
    size = -(-private.key_size // 8)
    der = private.sign(data, ec.ECDSA(_CURVE_HASHES[private.key_size]))
    r, s = utils.decode_dss_signature(der)
    return r.to_bytes(size) + s.to_bytes(size)


def is_valid(signature: bytes, data: bytes, certificate: Certificate) -> bool:
    """Whether a signature of `data` is by the key of a certificate."""
    public = certificate.public_key()
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, data)
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, data, _PSS, hashes.SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
            der = utils.encode_dss_signature(r, s)
            public.verify(der, data, ec.ECDSA(_CURVE_HASHES[public.key_size]))
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True

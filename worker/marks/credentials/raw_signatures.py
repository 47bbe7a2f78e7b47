"""Signatures in the form that COSE has them in (RFC 9053): of one length for each key."""

from abc import ABC, abstractmethod
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509 import Certificate

_CURVE_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)


class Scheme(ABC):
    """How one public key's signatures are made and checked."""

    def __init__(self, public: Any) -> None:
        self.public = public

    @abstractmethod
    def sign(self, private: Any, data: bytes) -> bytes:
        """The signature of `data` by the private key of the pair."""

    @abstractmethod
    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise `InvalidSignature` or `ValueError` unless a signature of `data` is valid."""

    def is_valid(self, signature: bytes, data: bytes) -> bool:
        """Whether a signature of `data` is valid."""
        try:
            self.verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class _Ecdsa(Scheme):
    def __init__(self, public: Any) -> None:
        super().__init__(public)
        self._size = -(-public.key_size // 8)
        self._algorithm = ec.ECDSA(_CURVE_HASHES[public.key_size])

    def sign(self, private: Any, data: bytes) -> bytes:
        r, s = utils.decode_dss_signature(private.sign(data, self._algorithm))
        return with_low_s(r.to_bytes(self._size) + s.to_bytes(self._size), self.public.curve)

    def verify(self, signature: bytes, data: bytes) -> None:
        if with_low_s(signature, self.public.curve) != signature:
            raise InvalidSignature
        r, s = (int.from_bytes(each) for each in (signature[: self._size], signature[self._size :]))
        self.public.verify(utils.encode_dss_signature(r, s), data, self._algorithm)


class _Ed25519(Scheme):
    def sign(self, private: Any, data: bytes) -> bytes:
        found: bytes = private.sign(data)
        return found

    def verify(self, signature: bytes, data: bytes) -> None:
        self.public.verify(signature, data)


class _Rsa(Scheme):
    def sign(self, private: Any, data: bytes) -> bytes:
        found: bytes = private.sign(data, _PSS, hashes.SHA256())
        return found

    def verify(self, signature: bytes, data: bytes) -> None:
        self.public.verify(signature, data, _PSS, hashes.SHA256())


def with_low_s(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    """The signature that is as valid as this one, and the only one of the two that Genmill makes.

    Anybody can replace an ECDSA signature (r, s) by (r, n - s). Of another length, as it is.
    """
    half = len(signature) // 2
    s = int.from_bytes(signature[half:])
    if len(signature) != 2 * -(-curve.key_size // 8) or not curve.group_order // 2 < s:
        return signature
    return signature[:half] + (curve.group_order - s).to_bytes(half)


def scheme_of(certificate: Certificate) -> Scheme:
    """How signatures with a certificate are made. Raises `ValueError` for a key of another kind."""
    public = certificate.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey) and public.key_size in _CURVE_HASHES:
        return _Ecdsa(public)
    if isinstance(public, ed25519.Ed25519PublicKey):
        return _Ed25519(public)
    if isinstance(public, rsa.RSAPublicKey):
        return _Rsa(public)
    raise ValueError("a key of another kind")

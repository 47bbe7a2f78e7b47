"""Signed heads of ledgers, as files hold them: in proofs, and kept outside for later audits."""

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from db.errors import BadInput, Unreachable
from db.leaves import ORIGIN, head_text
from db.path_errors import path_error, read_whole, shown
from db.tables import LedgerHead

MAX_BYTES = 256 << 20  # of a file: proofs hold the digests of many samples


@dataclass(frozen=True)
class Head:
    """The text that was signed, and by what: the id of the key, its public part as PEM."""

    text: str
    key: str
    public_key: str
    signature: bytes

    @property
    def origin(self) -> str:
        """What names the ledger."""
        return self.text.split("\n")[0]

    @property
    def size(self) -> int:
        """How many leaves the ledger had."""
        return int(self.text.split("\n")[1])

    @property
    def root(self) -> bytes:
        """The root of the tree that it was."""
        return base64.b64decode(self.text.split("\n")[2], validate=True)

    @property
    def at(self) -> datetime:
        """When it was signed."""
        return datetime.fromisoformat(self.text.split("\n")[3])

    @property
    def is_signed(self) -> bool:
        """Whether the signature is of this text, by this key."""
        return is_signature(self.public_key, self.signature, self.text)

    @property
    def document(self) -> dict[str, Any]:
        """The head as plain data."""
        signature = base64.b64encode(self.signature).decode()
        return {
            "text": self.text,
            "key": self.key,
            "public_key": self.public_key,
            "signature": signature,
        }


def head_of(ledger_id: str, row: LedgerHead, public_key: str) -> Head:
    """The head in a row."""
    text = head_text(ledger_id, row.size, bytes.fromhex(row.root), row.at)
    return Head(text, row.key_id, public_key, row.signature)


def is_signature(public_key: str, signature: bytes, text: str) -> bool:
    """Whether an Ed25519 signature of a text is by the key of this PEM."""
    try:
        key = serialization.load_pem_public_key(public_key.encode())
        if not isinstance(key, ed25519.Ed25519PublicKey):
            return False
        key.verify(signature, text.encode())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a proof or a head to a file that the user named. Raises `Unreachable`."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise path_error(error, path, verb="written to", kind=Unreachable) from None


def read_head(path: Path) -> Head:
    """The head in a file: on its own, or in a proof or what an audit printed.

    Raises `BadInput`, also if the head is not signed as it says.
    """
    data = read_whole(path, "a head", limit_bytes=MAX_BYTES, piped=True, remedy=_REMEDY)
    try:
        head = _parse(json.loads(data.decode("utf-8", errors="replace")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{shown(path)} holds no head of a ledger", remedy=_REMEDY) from None
    if not head.is_signed:
        raise BadInput(
            f"the head in {shown(path)} is not signed by the key that it names",
            remedy="it was changed since it was signed: use another copy",
        )
    return head


_REMEDY = "give a proof, or what `genmill provenance audit -o FILE` wrote"


def _parse(document: Any) -> Head:
    found = document.get("head", document)
    signature = base64.b64decode(found["signature"], validate=True)
    head = Head(str(found["text"]), str(found["key"]), str(found["public_key"]), signature)
    ledger_id = head.origin.removeprefix(ORIGIN.format(""))
    if head_text(ledger_id, head.size, head.root, head.at) != head.text or head.size < 1:
        raise ValueError
    return head

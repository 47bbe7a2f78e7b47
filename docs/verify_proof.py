r"""Verify a Genmill proof, and files that are said to come from it, without Genmill.

    pip install cryptography
    python verify_proof.py proof.json digits/000000017.png --key ledger-key.pem

Needs Python 3.11, `cryptography`, and no network. Each line of its output is a step that holds:

1. the signature of the ledger's head, by the Ed25519 key in the proof, or by one of yours (--key);
2. the path from the leaf to the head's root: the leaf is in that ledger (RFC 9162, section 2.1.3);
3. the manifest: the leaf holds its SHA-256;
4. the digests of the samples: the manifest holds the SHA-256 over all of them;
5. each FILE: its SHA-256 is that of an artifact or a sample. Of a .jsonl, every line is looked up;
6. an older head in the proof, signed alike: this ledger has only grown since (section 2.1.4).
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

FORMAT = "genmill-proof-1"


class NotProvenError(Exception):
    """A step does not hold."""


def fail(why: str) -> NoReturn:
    """Stop: a step does not hold."""
    raise NotProvenError(why)


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162, section 2.1.1."""
    return hashlib.sha256(b"\1" + left + right).digest()


def turns(number: int, last: int, path: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The siblings on the way up from a node, and whether each is a left one."""
    for sibling in path:
        if not last:
            fail("the path is too long")
        is_left = bool(number & 1) or number == last
        yield sibling, is_left
        while is_left and number and not number & 1:
            number, last = number >> 1, last >> 1
        number, last = number >> 1, last >> 1
    if last:
        fail("the path is too short")


def root_of_inclusion(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that a path leads to from a leaf (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        fail(f"leaf {index} cannot be in a tree of {size} leaves")
    node = leaf
    for sibling, is_left in turns(index, size - 1, path):
        node = node_hash(sibling, node) if is_left else node_hash(node, sibling)
    return node


def roots_of_consistency(old: int, new: int, root: bytes, path: list[bytes]) -> list[bytes]:
    """The old and new root that a path leads to (RFC 9162, section 2.1.4.2)."""
    if not 0 < old <= new:
        fail(f"a tree of {new} leaves cannot go on from one of {old}")
    nodes = [*([] if old & (old - 1) else [root]), *path] or [b""]
    if old == new:
        return [root, root]
    up = (old & -old).bit_length() - 1  # levels, to the root of the last whole part of the old one
    first = second = nodes[0]
    for node, is_left in turns((old - 1) >> up, (new - 1) >> up, nodes[1:]):
        first = node_hash(node, first) if is_left else first
        second = node_hash(node, second) if is_left else node_hash(second, node)
    return [first, second]


def key_of(head: dict[str, Any], pinned: list[bytes]) -> Ed25519PublicKey:
    """The key that signed a head: one of yours, or else the one that it names."""
    for pem in pinned or [head["public_key"].encode()]:
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            fail("a key that you gave, or that of a head, is no public key as PEM")
        if not isinstance(key, Ed25519PublicKey):
            fail("the key is not an Ed25519 public key")
        with suppress(InvalidSignature):
            key.verify(base64.b64decode(head["signature"], validate=True), head["text"].encode())
            return key
    fail("the head is not signed by " + ("the key that you gave" if pinned else "its key"))


def verify_head(head: dict[str, Any], pinned: list[bytes]) -> tuple[int, bytes, str]:
    """Verify a head's signature; return its size, its root, and what was verified."""
    key = key_of(head, pinned).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    origin, size, root, at, *_ = head["text"].split("\n")
    of_key = hashlib.sha256(key).hexdigest()
    told = f"head: {size} leaves of {origin}, signed {at} by the key with SHA-256 {of_key}"
    return int(size), base64.b64decode(root, validate=True), told


def verify_proof(proof: dict[str, Any], pinned: list[bytes]) -> Iterator[str]:
    """Verify everything but files; a line for each step that holds."""
    if proof["format"] != FORMAT:
        fail(f"this script verifies {FORMAT}, not {proof['format']}")
    size, root, told = verify_head(proof["head"], pinned)
    yield told
    text, index = proof["leaf"]["text"], int(proof["leaf"]["index"])
    leaf_hash = hashlib.sha256(b"\0" + text.encode()).digest()
    path = list(map(bytes.fromhex, proof["inclusion"]))
    if root_of_inclusion(leaf_hash, index, size, path) != root:
        fail("the leaf is not in the tree that was signed")
    leaf, manifest = json.loads(text), proof["manifest"].encode()
    yield f"leaf: number {index}, the {leaf['kind']} of job {leaf['subject']}"
    told = hashlib.sha256(manifest).hexdigest()
    if (leaf["kind"], leaf["data"]["manifest_sha256"]) != ("manifest", told):
        fail("the manifest is not the one in the ledger")
    made = json.loads(manifest)
    if not made["job"] == leaf["subject"] == proof["job"]:
        fail("the manifest is another job's")
    yield f"manifest: {len(made['artifacts'])} artifacts, SHA-256 {told}"
    if older := proof.get("older"):
        if older["head"]["text"].split("\n")[0] != proof["head"]["text"].split("\n")[0]:
            fail("the older head is another ledger's")
        yield verify_older(older, size, root, pinned)


def verify_older(older: dict[str, Any], size: int, root: bytes, pinned: list[bytes]) -> str:
    """Verify that the ledger goes on from an older head."""
    old_size, old_root, told = verify_head(older["head"], pinned)
    path = [bytes.fromhex(each) for each in older["consistency"]]
    if roots_of_consistency(old_size, size, old_root, path) != [old_root, root]:
        fail(f"the ledger does not go on from the older head of {old_size} leaves")
    return f"older {told}: its leaves are still the first ones"


def known_digests(proof: dict[str, Any]) -> dict[str, str]:
    """What each digest is of: the artifacts in the manifest, and the samples that it sums up."""
    made = json.loads(proof["manifest"])["artifacts"]
    artifacts = {(each["shard"], each["name"]): each for each in made}
    known = {each["sha256"]: f"artifact {each['name']}" for each in artifacts.values()}
    for some in proof["members"]:
        numbered = list(enumerate(some["digests"], some["first"]))
        total = hashlib.sha256("".join(f"{n} {digest}\n" for n, digest in numbered).encode())
        told = artifacts[some["shard"], some["name"]]["members"]
        if (told["count"], told["sha256"]) != (len(numbered), total.hexdigest()):
            fail(f"the digests of {some['name']} are not those that the manifest sums up")
        known |= {digest: f"sample {number}" for number, digest in numbered}
    return known


def verify_file(path: Path, known: dict[str, str], job: str) -> str:
    """Say what a file is; fail if it is nothing of the job."""
    data = path.read_bytes()
    if found := known.get(hashlib.sha256(data).hexdigest()):
        return f"{path}: {found} of job {job}"
    if path.suffix != ".jsonl":
        fail(f"{path} is nothing that the proof knows of: it was changed, or is not of this job")
    lines = data.removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        if hashlib.sha256(line).hexdigest() not in known:
            fail(f"line {number} of {path} is nothing that the proof knows of")
    return f"{path}: {len(lines)} lines, all samples of job {job}"


def main() -> int:
    """Verify what the command line names."""
    parser = argparse.ArgumentParser(description="Verify a Genmill proof and files of its job.")
    parser.add_argument("proof", type=Path, help="what `genmill provenance proof` wrote")
    parser.add_argument("files", type=Path, nargs="*", help="files that were downloaded")
    told = "a public key of the ledger, as PEM, as you know it; again for each that it has had"
    parser.add_argument("--key", type=Path, action="append", default=[], help=told)
    given = parser.parse_args()
    try:
        proof = json.loads(given.proof.read_text("utf-8"))
        for line in verify_proof(proof, [each.read_bytes() for each in given.key]):
            print("ok:", line)
        known = known_digests(proof)
        for file in given.files:
            print("ok:", verify_file(file, known, proof["job"]))
    except (NotProvenError, OSError) as error:
        return print("NOT PROVEN:", error, file=sys.stderr) or 1
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return print(f"NOT PROVEN: this is no proof: {error!r}", file=sys.stderr) or 1
    if not given.key:
        print("note: compare the key's SHA-256 with the one that you know, or give it with --key")
    return 0


if __name__ == "__main__":
    sys.exit(main())

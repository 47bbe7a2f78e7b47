"""C2PA Content Credentials: a signed statement of what a file is and of what it was made by.

The only module that knows `c2pa-python`. The signature binds every byte of the file, so it comes
last. Nothing is asked over the network: there is no time stamp, and no revocation list but that of
the keyring. Source: C2PA Technical Specification 2.2, 2025.
"""

import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from db.errors import GenmillError, raise_outage
from worker.extras import needed_for
from worker.keys.certificates import ACCEPTED
from worker.marks.base import ABSENT, DAMAGED, NOT_APPLICABLE, PRESENT, Mark, Marking, Reading, Stage
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import AI_GENERATED

if TYPE_CHECKING:
    from worker.keys.keyring import HeldKey, Keyring
    from worker.media.base import Medium

FORMATS = {".png": "image/png", ".wav": "audio/wav"}  # that samples have and C2PA can be inside
CLAIMS = "genmill.origin"  # the label of the assertion that says what a sample was made by
CLAIMED = ("model", "weights_sha256", "family", "dataset", "trained_on", "seed", "label", "genmill")
THREADS = min(8, os.cpu_count() or 1)
CHUNK = 8  # files that a thread signs in a row
UNTRUSTED = "signingCredential.untrusted"
OURS, FOREIGN, REVOKED = "ours", "untrusted", "revoked"
_NO_PLACE = "C2PA has no place for a signature inside {} files"


class C2pa(Mark):
    """The signature. Its key is the tenant's signing key that the spec pins."""

    name = "c2pa"
    stage = Stage.SIGNATURE
    purposes = ("signing",)

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """See `Mark.misfit`."""
        suffix = marking.medium.suffix
        return "" if suffix in FORMATS else _NO_PLACE.format(suffix)

    def apply_bytes(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> list[bytes]:
        """Sign every file, in threads: the library signs while another thread goes on."""
        signing = _signing(_ring(marking))
        form = FORMATS[marking.medium.suffix]
        licence = _licence(marking)

        def sign(start: int) -> list[bytes]:
            some = slice(start, start + CHUNK)
            return [
                _sign(signing, form, claims(sample, licence), content)
                for sample, content in zip(samples[some], data[some], strict=True)
            ]

        starts = range(0, len(samples), CHUNK)
        chunks = _pool().map(sign, starts) if len(starts) > 1 else map(sign, starts)
        return [signed for chunk in chunks for signed in chunk]

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """Whether the file is as it was signed, by which key, and whether that key is ours."""
        form = FORMATS.get(medium.suffix)
        if form is None:
            return Reading(self.name, NOT_APPLICABLE, why=_NO_PLACE.format(medium.suffix))
        library = _library()
        try:
            reader = library.Reader.try_create(
                form, BytesIO(data), context=_reading(keys.anchors)
            )
            if reader is None:
                return Reading(self.name, ABSENT)
            with reader:
                found = json.loads(reader.json())
        except (library.C2paError, ValueError) as error:
            raise_outage(error)
            return Reading(self.name, DAMAGED, why=f"it cannot be read: {_line(error)}")
        return _told(self.name, found, keys)

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """See `Mark.expected`."""
        return {
            "trust": OURS,
            "key": _ring(marking).current("signing").id,
            "claims": claims(sample, _licence(marking)),
        }

    def signed_part(self, data: bytes, medium: "Medium") -> bytes:
        """See `Mark.signed_part`."""
        parts = _without_png if data.startswith(b"\x89PNG") else _without_riff
        return b"".join(parts(data))


MARK = C2pa()


def claims(sample: SampleRecord, licence: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What a file's signature says that it was made by: model, data, seed and number, licence.

    All other settings are in the record inside the file, which the signature binds too.
    """
    record = sample.shared.record
    found: dict[str, JsonValue] = {name: record[name] for name in CLAIMED if record.get(name)}
    found |= {"seed": record["seed"], "index": sample.index}
    return found | ({"licence": dict(licence)} if licence else {})


def _ring(marking: Marking) -> "Keyring":
    """The keys that the job was enqueued with, whatever is current now."""
    return marking.keys.use(marking.profile.keys)


def _licence(marking: Marking) -> Mapping[str, JsonValue]:
    return {k: v for k, v in marking.profile.settings.get("licence", {}).items() if v is not None}


def _sign(signing: Any, form: str, said: Mapping[str, JsonValue], content: bytes) -> bytes:
    """The file with its signature inside."""
    library = _library()
    definition = {
        "claim_generator_info": [{"name": "Genmill", "version": str(said.get("genmill", ""))}],
        "assertions": [{"label": CLAIMS, "data": said}],
    }
    signed = BytesIO()
    try:
        with library.Builder(json.dumps(definition), context=signing) as builder:
            builder.set_intent(
                library.C2paBuilderIntent.CREATE,
                library.C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA,
            )
            builder.sign(form, BytesIO(content), signed)
    except library.C2paError as error:
        raise GenmillError(
            f"sample {said['index']} cannot be signed: {_line(error)}",
            remedy="see whether its certificate is valid: `genmill key list`",
        ) from None
    return signed.getvalue()


def _told(name: str, found: Mapping[str, Any], keys: "Keyring") -> Reading:
    """The reading of a manifest store as the library gives it."""
    manifest = found.get("manifests", {}).get(found.get("active_manifest"), {})
    signature = manifest.get("signature_info") or {}
    failures = [
        each
        for part in _validations(found)
        for each in part.get("failure", ())
        if each.get("code") != UNTRUSTED
    ]
    key = keys.signing_key(str(signature.get("cert_serial_number", "")))
    trusted = found.get("validation_state") == "Trusted" and key is not None
    assertions = {each["label"]: each.get("data") for each in manifest.get("assertions", ())}
    broken = list(dict.fromkeys(str(each.get("code")) for each in failures))
    says: dict[str, JsonValue] = {
        "trust": OURS if trusted else FOREIGN,
        "key": key.id if key and trusted else None,
        "signer": signature.get("issuer"),
        "common_name": signature.get("common_name"),
        "algorithm": signature.get("alg"),
        "generated": _is_generated(assertions),
        "claims": assertions.get(CLAIMS),
        "manifest": found.get("active_manifest"),
        "broken": list[JsonValue](broken),
    }
    if broken or found.get("validation_state") == "Invalid":
        reasons = [f"{each.get('code')}: {each.get('explanation', '')}" for each in failures]
        return Reading(name, DAMAGED, says, "; ".join(dict.fromkeys(reasons)) or "it is invalid")
    if trusted and key is not None and key.revoked_at is not None:
        return Reading(name, DAMAGED, says | {"trust": REVOKED}, _revoked(key))
    return Reading(name, PRESENT, says, "" if trusted else _foreign(signature))


def _validations(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The results for the file's own manifest, and for those of what it was made from."""
    results = found.get("validation_results") or {}
    yield results.get("activeManifest") or {}
    for each in results.get("ingredientDeltas") or ():
        yield each.get("validationDeltas") or {}


def _revoked(key: "HeldKey") -> str:
    return f"its key {key.id} was revoked on {key.revoked_at:%Y-%m-%d}: {key.reason}"


def _foreign(signature: Mapping[str, Any]) -> str:
    return f"it is signed by {signature.get('issuer')!r}, not by a key of this installation"


def _is_generated(assertions: Mapping[str, Any]) -> bool:
    """Whether the file says that it was created by a trained model."""
    actions = (assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions") or {}).get(
        "actions", ()
    )
    return any(
        each.get("action") == "c2pa.created" and each.get("digitalSourceType") == AI_GENERATED
        for each in actions
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@cache
def _library() -> Any:
    """c2pa-python, which takes a while to load."""
    with needed_for("signing and reading C2PA"):
        import c2pa  # noqa: PLC0415 - of an extra; and as above
    return c2pa


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="c2pa")


_lock = threading.Lock()
_contexts: dict[str, Any] = {}  # of the library, by key id or anchors; threads share them


def _signing(ring: "Keyring") -> Any:
    """A context that signs with the key in use. The private key stays in the library's memory."""
    key_id = ring.current("signing").id
    with _lock:
        if key_id not in _contexts:
            library, signer = _library(), ring.signer()
            info = library.C2paSignerInfo(
                signer.algorithm.encode(), signer.chain.encode(), signer.private, None
            )
            settings = {
                "verify": {"verify_after_sign": False},  # it is read back, by `read`
                "builder": {"thumbnail": {"enabled": False}},
            }
            _contexts[key_id] = library.Context.from_dict(
                settings, signer=library.Signer.from_info(info)
            )
        return _contexts[key_id]


def _reading(anchors: str) -> Any:
    """A context that trusts what these certificates lead up to."""
    with _lock:
        if anchors not in _contexts:
            trust = {"trust_anchors": anchors, "trust_config": "\n".join(ACCEPTED)}
            settings = {
                "verify": {
                    "verify_trust": True,
                    "ocsp_fetch": False,
                    "remote_manifest_fetch": False,
                },
                **({"trust": trust} if anchors else {}),
            }
            _contexts[anchors] = _library().Context.from_dict(settings)
        return _contexts[anchors]


def _forget() -> None:
    """In a forked child: the threads are not there, and the library's objects are the parent's."""
    _contexts.clear()
    _pool.cache_clear()


os.register_at_fork(after_in_child=_forget)


def _without_png(data: bytes) -> Iterator[bytes]:
    """A PNG file without its `caBX` chunks."""
    yield data[:8]
    at = 8
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind != b"caBX":
            yield data[at : at + 12 + size]
        at += 12 + size
    yield data[at:]


def _without_riff(data: bytes) -> Iterator[bytes]:
    """A RIFF file without its `C2PA` chunks."""
    kept, at = bytearray(), 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        end = at + 8 + size + size % 2
        if kind != b"C2PA":
            kept += data[at:end]
        at = end
    yield data[:4] + struct.pack("<I", 4 + len(kept)) + data[8:12] + bytes(kept)

"""The only module that knows `c2pa-python`: signing files, and reading what is signed.

Nothing is asked over the network.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from io import BytesIO
from typing import Any

from pydantic import JsonValue

from db.errors import GenmillError, raise_outage
from worker.extras import needed_for
from worker.keys.certificates import ACCEPTED, Signer

MAX_READS = 300_000  # of a file, each of which takes a few microseconds
MAX_STORE = 1 << 20  # bytes of a manifest store that lies beside what it is of

_contexts: dict[str, Any] = {}  # of the library, by key id or anchors; threads share them
_lock = threading.Lock()


class Unreadable(ValueError):
    """What a file holds in place of a manifest store."""


class _Bounded(BytesIO):
    """A file that ends when it was read from too often: one of millions of tiny parts."""

    left = MAX_READS

    def readinto(self, buffer: Any, /) -> int:
        """See `BytesIO`."""
        self.left -= 1
        return super().readinto(buffer) if self.left >= 0 else 0


def sign(
    key_id: str,
    signer: Callable[[], Signer],
    media_type: str,
    assertions: Mapping[str, JsonValue],
    content: bytes,
    *,
    version: str,
    external: bool = False,
) -> bytes:
    """The file with a manifest that says it was created by a trained model, and these assertions.

    With `external`, the manifest store alone, which says the same of the file as it is. `signer` is
    asked once for each `key_id`. `version` is Genmill's. Raises `GenmillError`.
    """
    library = _library()
    definition = {
        "claim_generator_info": [{"name": "Genmill", "version": version}],
        "assertions": [{"label": label, "data": data} for label, data in assertions.items()],
    }
    signed = BytesIO()
    try:
        context = _context(key_id, lambda: _signing(signer()))
        with library.Builder(json.dumps(definition), context=context) as builder:
            builder.set_intent(
                library.C2paBuilderIntent.CREATE,
                library.C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA,
            )
            if external:
                builder.set_no_embed()
            store: bytes = builder.sign(media_type, BytesIO(content), signed)
    except library.C2paError as error:
        raise GenmillError(
            f"a sample cannot be signed with key {key_id}: {_line(error)}",
            remedy="see whether its certificate is still valid, and rotate it: `genmill key list`",
        ) from None
    return store if external else signed.getvalue()


def read(
    data: bytes, media_type: str, anchors: str, store: bytes | None = None
) -> dict[str, Any] | None:
    """The manifest store of a file, validated; None if it has none. Raises `Unreadable`.

    `anchors` are certificates as PEM: what leads up to them is trusted. `store` is an external one,
    in place of that in the file.
    """
    if store is not None and len(store) > MAX_STORE:
        raise Unreadable(f"its manifest has over {MAX_STORE:,} bytes")
    library = _library()
    try:
        context = _context(anchors, lambda: _trusting(anchors))
        file = _Bounded(data)
        reader = library.Reader.try_create(media_type, file, store, context=context)
        if file.left < 0:
            raise Unreadable("it has too many parts")
        if reader is None:
            return None
        with reader:
            found: dict[str, Any] = json.loads(reader.json())
    except (library.C2paError, ValueError) as error:
        raise_outage(error)
        raise Unreadable(_line(error)) from None
    return found


def failures(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What was found wrong with the file's own manifest, and with those of what it is made from."""
    results = found.get("validation_results") or {}
    parts = [results.get("activeManifest") or {}]
    parts += [each.get("validationDeltas") or {} for each in results.get("ingredientDeltas") or ()]
    for part in parts:
        yield from part.get("failure", ())


def _signing(signer: Signer) -> Any:
    library = _library()
    info = library.C2paSignerInfo(
        signer.algorithm.encode(), signer.chain.encode(), signer.private, None
    )
    settings = {
        "verify": {"verify_after_sign": False},  # every file is read back
        "builder": {"thumbnail": {"enabled": False}},
    }
    return library.Context.from_dict(settings, signer=library.Signer.from_info(info))


def _trusting(anchors: str) -> Any:
    trust = {"trust_anchors": anchors, "trust_config": "\n".join(ACCEPTED)}
    offline = {"ocsp_fetch": False, "remote_manifest_fetch": False}
    settings = {
        "verify": {"verify_trust": True, **offline},
        **({"trust": trust} if anchors else {}),
    }
    return _library().Context.from_dict(settings)


def _context(name: str, make: Callable[[], Any]) -> Any:
    with _lock:
        if name not in _contexts:
            _contexts[name] = make()
        return _contexts[name]


@cache
def _library() -> Any:
    """c2pa-python, which takes a while to load."""
    with needed_for("signing and reading C2PA"):
        import c2pa  # noqa: PLC0415 - of an extra; and as above
    return c2pa


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _forget() -> None:
    """In a forked child: the library's objects are the parent's."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _contexts.clear()


os.register_at_fork(after_in_child=_forget)

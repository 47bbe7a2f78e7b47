"""A webhook: each item is a signed message, by the Standard Webhooks specification.

The `webhook-id` of an item is the same at each try, so a receiver that drops repeated ids gets each
item once. A receiver that answers with the item's `sha256` confirms what it has received.
"""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from db.errors import NotSupportedHere, Refused
from worker.extras import needed_for
from worker.publishing.access import addresses
from worker.publishing.access.http import failure, network_errors
from worker.publishing.base import (
    Delivery,
    Item,
    ItemRefused,
    NotTaken,
    Presence,
    Record,
    Target,
    TargetAway,
    TargetSettings,
)

if TYPE_CHECKING:
    import httpx
    from standardwebhooks import Webhook as Signer

PUBLISHED, TAKEN_DOWN, CHECKED = "item.published", "item.taken_down", "target.checked"
MAX_ANSWER = 64 << 10  # bytes


class Webhook(Target[TargetSettings]):
    """A receiver of messages, which cannot be asked for what it has."""

    title: ClassVar[str] = "a receiver of signed messages (Standard Webhooks)"
    schema: ClassVar[type[TargetSettings]] = TargetSettings
    secrets: ClassVar[Mapping[str, str]] = {
        "secret": "the signing secret that the receiver knows, whsec_ and base64"
    }
    gives_back: ClassVar[bool] = False

    def __init__(self, settings: TargetSettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        self._server = self.place(settings.address)
        if "secret" not in secrets:
            raise Refused(
                "a webhook needs its signing secret",
                remedy="give --secret secret=env:VARIABLE or secret=file:/path",
            )

    @classmethod
    def place(cls, address: str) -> addresses.Server:
        """See `Target.place`."""
        return addresses.endpoint(address)

    def __str__(self) -> str:
        return self._server.url

    def check(self) -> None:
        """See `Target.check`: the receiver gets a message of the type `target.checked`."""
        self._send(f"msg_check_{datetime.now(UTC):%Y%m%d%H%M%S%f}", CHECKED, {})

    def locate(self, item: Item) -> str:
        """See `Target.locate`: the id of the message."""
        return f"msg_{item.event}"

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`. Raises `ItemRefused` if the receiver has received other bytes."""
        message_id = self.locate(item)
        content = {
            "id": message_id,
            "key": item.key,
            "media_type": item.media_type,
            "sha256": item.sha256,
            "record": dict(record),
            "content": base64.b64encode(data).decode(),
        }
        try:
            found = self._send(message_id, PUBLISHED, content)
        except ItemRefused as error:
            raise NotTaken(error.message) from error
        if found not in {None, item.sha256}:
            raise ItemRefused(f"{self} answers that it has received other bytes")
        return message_id

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        raise NotSupportedHere(f"{self} gives nothing back")

    def compare(self, delivery: Delivery) -> Presence:
        """See `Target.compare`."""
        raise NotSupportedHere(f"{self} does not tell what it has")

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        raise NotSupportedHere(f"{self} lists nothing")

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`: a message of the type `item.taken_down`."""
        self._send(f"{remote_id}_down", TAKEN_DOWN, {"id": remote_id})

    def open(self) -> None:
        """See `Target.open`."""
        _ = self._client, self._signer

    def close(self) -> None:
        """See `Target.close`."""
        if "_client" in self.__dict__:
            self._client.close()

    def _send(self, message_id: str, kind: str, content: dict[str, Any]) -> object:
        """Send a message; the SHA-256 that the receiver answers with, if it does."""
        body = json.dumps({"type": kind, "data": content}, ensure_ascii=False)
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, body),
        }
        until = time.monotonic() + self.settings.timeout_s
        post = ("POST", self._server.url)
        with (
            network_errors(self),
            self._client.stream(*post, content=body.encode(), headers=headers) as answer,
        ):
            if not answer.is_success:
                raise failure(self, answer.status_code, answer.headers.get("retry-after"))
            return _sha256_in(self._beginning(answer, until))

    def _beginning(self, answer: "httpx.Response", until: float) -> bytes:
        """The first bytes of an answer, however long it is. Raises `TargetAway`."""
        found = b""
        for part in answer.iter_bytes():
            found += part
            if len(found) > MAX_ANSWER:
                break
            if time.monotonic() > until:
                raise TargetAway(
                    f"{self} does not end its answer within {self.settings.timeout_s:g} s"
                )
        return found[:MAX_ANSWER]

    @cached_property
    def _client(self) -> "httpx.Client":
        with needed_for("publishing to webhooks"):
            import httpx  # noqa: PLC0415 - of an extra

        return httpx.Client(timeout=self.settings.timeout_s, follow_redirects=False)

    @cached_property
    def _signer(self) -> "Signer":
        with needed_for("publishing to webhooks"):
            from standardwebhooks import Webhook as Signer  # noqa: PLC0415 - of an extra
            from standardwebhooks.webhooks import EmptyWebhookSecretError  # noqa: PLC0415 - as above

        signer = None
        with suppress(ValueError, RuntimeError, EmptyWebhookSecretError):
            signer = Signer(self._secrets["secret"])
        if signer is None:  # outside the handler: its error may show the secret
            raise Refused("the webhook's secret is not base64", remedy="as in whsec_MfKQ9r8G...")
        return signer


def _sha256_in(answer: bytes) -> object:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return found.get("sha256") if isinstance(found, dict) else None


TARGET = Webhook
